"""Names and units of errors, the same wherever they are shown."""

import math

import pytest

from omnicalc.training.errors_shown import before_and_after, in_words, on_cards, reported_names, rooted
from omnicalc.training.objectives import _OBJECTIVES, build_objective
from omnicalc.training.run_log import RunLog

ERRORS = {"force_mae": 0.0512, "force_rmse": 0.0734, "energy_mae": 0.00123, "property_rmse": 2.0}


def test_mean_squares_are_reported_as_their_roots():
    assert rooted({"force_mae": 3.0, "force_mse": 4.0}) == {"force_mae": 3.0, "force_rmse": 2.0}
    assert reported_names(("noise_mse", "mse_mae")) == ("noise_rmse", "mse_mae")


def test_units():
    assert in_words(ERRORS) == "force MAE 51.2 meV/Å, RMSE 73.4, energy MAE 1.230 meV/atom, property_rmse 2"
    assert on_cards(ERRORS) == {
        "force_mae_meV_per_A": 51.2,
        "force_rmse_meV_per_A": 73.4,
        "energy_mae_meV_per_atom": 1.23,
        "property_rmse": 2.0,
    }
    unlabelled = {**ERRORS, "energy_mae": math.nan}
    assert "energy" not in in_words(unlabelled) and "energy_mae_meV_per_atom" not in on_cards(unlabelled)


def test_a_log_of_an_earlier_version_is_continued(tmp_path):
    log = RunLog(tmp_path, ("force",), ("force_mae", "stress_mae"))
    start = dict.fromkeys(log.fields, "1") | {"source": "boxes", "head": "a", "group": "all"}
    old = [name for name in log.fields if name != "stress_mae"]
    lines = [old, [start[name] for name in old], ["2", "1"]]  # the last one cut off
    log.path.write_text("".join(",".join(line) + "\n" for line in lines))
    log.truncate(5)
    (row,) = log.read()
    assert row == {**start, "stress_mae": ""} and log.last_errors()[0].errors == {"force_mae": 1.0}
    log.path.write_text("step,loss\n")
    with pytest.raises(ValueError, match="first line is not that of this training"):
        log.truncate(5)


def test_stress_is_shown_where_it_is_known():
    errors = {"force_mae": 0.05, "stress_mae": 0.00125}
    assert in_words(errors) == "force MAE 50.0 meV/Å, stress MAE 1.250 meV/Å^3 (0.2003 GPa)"
    assert on_cards(errors)["stress_mae_meV_per_A3"] == 1.25
    rows = [{"step": step, "source": "boxes", "group": "all", **errors} for step in (0, 5)]
    assert "stress MAE, meV/Å^3" in before_and_after(rows) and "1.250 -> 1.250" in before_and_after(rows)
    none = [{**r, "source": "molecules", "stress_mae": ""} for r in rows]
    assert "stress" not in before_and_after(none) and before_and_after(rows + none).splitlines()[2].endswith(" -")


@pytest.mark.parametrize("name", _OBJECTIVES)
def test_every_objective_has_a_table(name):
    """Of the first and the last validation, with at least one of its errors."""
    names = reported_names(build_objective({"name": name}).error_names)
    rows = [
        {"step": str(step), "source": source, "group": group, **dict.fromkeys(names, value)}
        for step, value in ((0, "0.5"), (7, "0.25"))
        for source in ("water", "salt")
        for group in ("all", "cold")
    ]
    title, *lines = before_and_after(rows).splitlines()
    assert [line.split()[0] for line in lines] == ["water", "salt"]
    assert lines[0].count("->") == title.count("MAE") + title.count("RMSE") > 0


def test_what_has_no_label_is_a_dash_in_the_table():
    errors = {"force_mae": 0.05, "energy_mae": math.nan}
    rows = [{"step": step, "source": "forces alone", "group": "all", **errors} for step in (0, 5)]
    line = before_and_after(rows).splitlines()[1]
    assert line.endswith(" -") and line.count("->") == 1 and "nan" not in line
