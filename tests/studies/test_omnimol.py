"""The low-data study: what its trainings differ in, and what it reads from their logs."""

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.omnimol.low_data import FORCES, STARTS, best_errors, case_recipe, cases, draw, write_table
from omnicalc.models import build_model
from omnicalc.training.recipe import find_recipe, read_recipe

BASE = read_recipe(find_recipe("omnimol-organics"))
LOG = """step,source,group,force_mae,energy_mae
0,a,all,0.9,0.09
10,a,all,0.4,0.03
10,b,all,0.2,0.01
10,b,ion,0.0,0.0
20,a,all,0.3,0.05
20,b,all,0.4,0.05
"""


@pytest.mark.parametrize("forces", FORCES)
def test_cases_differ_in_labels_and_start_alone(forces, tmp_path):
    found = {(c.start, c.structures): case_recipe(BASE, c, 60, tmp_path) for c in cases(forces, (100, None))}
    assert set(found) == {(start, size) for start in STARTS for size in (100, None)}
    for (start, size), recipe in found.items():
        assert recipe.start == (str(tmp_path.resolve()) if start == "pretrained" else BASE.start)
        limits = [source.limit for source in recipe.data]
        assert limits == [None] * len(limits) if size is None else sum(limits) == pytest.approx(100, abs=2)
        assert recipe.steps == 60 and recipe.objective["rotate"] == (forces == "direct")
        assert build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)}).config.forces == forces
        same = found["scratch", None]
        assert replace(recipe, start=same.start, data=same.data, name=same.name) == same


def test_best_errors_are_of_one_step_over_all_sources(tmp_path):
    """Step 20 has the lowest error of one source, step 10 the lowest mean of both."""
    (tmp_path / "log.csv").write_text(LOG)
    assert best_errors(tmp_path) == {"force_mae": pytest.approx(0.3), "energy_mae": pytest.approx(0.02)}


def test_table_and_figure(tmp_path: Path):
    rows = [
        {"case": case, "force_mae": 0.1 + 0.1 * (case.start == "scratch"), "energy_mae": 0.002}
        for forces in FORCES
        for case in cases(forces, (100, None))
    ]
    write_table(tmp_path / "x.csv", rows)
    assert "conservative,scratch,100,200.0,2.0" in (tmp_path / "x.csv").read_text().splitlines()
    draw(tmp_path / "x.png", rows)
    assert (tmp_path / "x.png").stat().st_size > 5000
