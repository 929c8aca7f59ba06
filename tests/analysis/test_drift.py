import json

import numpy as np
import pytest

from omnicalc.analysis.drift import energy_drift
from omnicalc.analysis.energy import COLUMNS
from omnicalc.errors import InputError

ATOMS = 50


def write_run(folder, total, dt_fs=1.0, atoms=ATOMS, ensemble="nve"):
    folder.mkdir(exist_ok=True)
    lines = [",".join(COLUMNS)]
    for k, energy in enumerate(total):
        lines.append(f"{k},{k * dt_fs},{float(energy) - 1.0},1.0,{float(energy)},300.0")
    (folder / "log.csv").write_text("\n".join([*lines, ""]))
    record = {"structure": {"atoms": atoms}, "settings": {"ensemble": ensemble}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def correlated(n, rng, tau=20.0):
    decay = np.exp(-1.0 / tau)
    noise = rng.normal(size=n) * np.sqrt(1 - decay**2)
    for k in range(1, n):
        noise[k] += decay * noise[k - 1]
    return noise


def test_slope_is_found_in_the_right_units(tmp_path):
    slope = 0.3  # eV/ps for the whole system
    total = -100.0 + slope * np.arange(2000) / 1000.0 + 1e-3 * correlated(2000, np.random.default_rng(0))
    result = energy_drift(write_run(tmp_path / "run", total))
    found = result["drift of the total energy"]
    assert found.unit == "meV/atom/ps" and found.value == pytest.approx(slope * 1000 / ATOMS, rel=0.01)
    assert result["drift as heating"].value == pytest.approx(found.value / 1000 * 1000 / (3 * 8.617333e-5), rel=1e-6)
    assert result["total change over the log"].value == pytest.approx(0.6, rel=0.01)
    assert result["fluctuation about the line"].value == pytest.approx(1000 * 1e-3 / ATOMS, rel=0.25)
    assert not result.notes
    (tmp_path / "run" / "run.json").unlink()
    other = energy_drift(tmp_path / "run" / "log.csv", atoms=2 * ATOMS)["drift of the total energy"]
    assert other.value == pytest.approx(found.value / 2)


def test_error_covers_the_truth_where_least_squares_does_not(tmp_path):
    hits, naive_hits = [], []
    for seed in range(40):
        total = correlated(1500, np.random.default_rng(seed), tau=15.0)
        found = energy_drift(write_run(tmp_path / "run", total))["drift of the total energy"]
        hits.append(abs(found.value) < 2.31 * found.stderr)  # t, 8 degrees of freedom, 95 %
        time = np.arange(1500) / 1000.0
        values = total * 1000.0 / ATOMS
        slope, cut = np.polyfit(time, values, 1)
        rest = values - slope * time - cut
        naive = np.sqrt(rest @ rest / 1498 / ((time - time.mean()) ** 2).sum())
        naive_hits.append(abs(slope) < 1.96 * naive)
    assert np.mean(hits) > 0.85 and np.mean(naive_hits) < 0.6


def test_a_thermostatted_run_is_pointed_out(tmp_path):
    folder = write_run(tmp_path / "run", np.random.default_rng(1).normal(size=50), ensemble="nvt")
    assert any("not meant to be conserved" in note for note in energy_drift(folder).notes)


def test_the_conserved_energy_of_a_thermostatted_run_takes_the_place_of_the_total(tmp_path):
    rng = np.random.default_rng(2)
    folder = write_run(tmp_path / "run", 5.0 * rng.normal(size=200).cumsum(), ensemble="npt")
    head, *rows = (folder / "log.csv").read_text().splitlines()
    kept = [f"{row},{0.2 * k / 1000.0 + 1e-5 * rng.normal()},1000.0,1.0" for k, row in enumerate(rows)]
    (folder / "log.csv").write_text("\n".join([f"{head},conserved_eV,volume_A3,pressure_bar", *kept, ""]))
    result = energy_drift(folder)
    assert result["drift of the conserved energy"].value == pytest.approx(0.2 * 1000 / ATOMS, rel=0.01)
    assert not result.notes and "conserved_meV_per_atom" in result.tables["blocks"]


def test_a_number_of_atoms_that_the_run_contradicts_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", np.zeros(30))
    assert energy_drift(folder, atoms=ATOMS).record() == energy_drift(folder).record()
    with pytest.raises(InputError, match=f"--atoms 7 given, but the run.json .* says {ATOMS}; leave"):
        energy_drift(folder, atoms=7)


def test_bad_input_names_what_is_missing(tmp_path):
    folder = write_run(tmp_path / "run", np.zeros(30))
    (folder / "run.json").unlink()
    with pytest.raises(InputError, match="--atoms"):
        energy_drift(folder)
    with pytest.raises(InputError, match="log.csv does not exist"):
        energy_drift(tmp_path)
    with pytest.raises(InputError, match="--skip-ps"):
        energy_drift(folder, atoms=3, skip_ps=1.0)
    for time in (-1.0, np.nan):
        with pytest.raises(InputError, match=f"--skip-ps {time:g} is no time"):
            energy_drift(folder, atoms=3, skip_ps=time)
