import json

import numpy as np
import pytest

from omnicalc.analysis.energy import COLUMNS
from omnicalc.analysis.hvap import heat_of_vaporisation
from omnicalc.errors import InputError

from .conftest import waters

LIQUID, GAS = -14.7, -14.3  # eV per molecule


def write_run(write_traj, tmp_path, name, side, per_molecule, head="a", temperature=300.0):
    elements, positions = waters(side, 6.0 * side, np.random.default_rng(0))
    made = write_traj(elements, [positions] * 2, (6.0 * side,) * 3 + (90.0,) * 3)
    folder = tmp_path / name
    folder.mkdir()
    for file in (made, made.with_name("topology.pdb")):
        file.rename(folder / file.name)
    n, rng = side**3, np.random.default_rng(side)
    lines = [",".join(COLUMNS)]
    for k in range(400):
        potential = n * per_molecule + 0.05 * np.sqrt(n) * rng.normal()
        lines.append(f"{k},{10 * k},{potential},1.0,{potential + 1},{temperature + rng.normal()}")
    (folder / "log.csv").write_text("\n".join([*lines, ""]))
    record = {"settings": {"ensemble": "nvt", "temperature_K": temperature}}
    record["model"] = {"name": "toy", "sha256": "1", "head": head}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_it_is_the_difference_per_molecule_and_rt(write_traj, tmp_path):
    liquid, gas = write_run(write_traj, tmp_path, "l", 3, LIQUID), write_run(write_traj, tmp_path, "g", 1, GAS)
    result = heat_of_vaporisation(liquid, gas)
    found = result["heat of vaporisation"]
    expected = (GAS - LIQUID) * 96.48533 + 8.314462618e-3 * 300.0
    assert abs(found.value - expected) < 3 * found.stderr
    error = 0.05 / np.sqrt(400) * 96.485 * np.hypot(1.0, 1 / np.sqrt(27))
    assert found.stderr == pytest.approx(error, rel=0.6)
    assert abs(found.value - (expected - 8.314e-3 * 300.0)) > 3 * found.stderr, "RT is part of it"
    assert result["experiment, water"].value == pytest.approx(10.51 * 4.184, abs=0.01)
    record = json.loads((liquid / "run.json").read_text())
    record["settings"] |= {"ensemble": "nve", "temperature_K": 600.0}  # of the first velocities: half of it is left
    (liquid / "run.json").write_text(json.dumps(record))
    assert heat_of_vaporisation(liquid, gas).settings["temperature_K"] == pytest.approx(300.0, abs=0.5)
    warm = heat_of_vaporisation(liquid, gas, temperature=400.0)["heat of vaporisation"]
    assert warm.value - found.value == pytest.approx(0.8314, abs=1e-3)
    assert found.note.endswith("RT = 2.494 kJ/mol")


def test_what_does_not_belong_together_is_refused(write_traj, tmp_path):
    liquid, gas = write_run(write_traj, tmp_path, "l", 3, LIQUID), write_run(write_traj, tmp_path, "g", 1, GAS)
    with pytest.raises(InputError, match="name the liquid first"):
        heat_of_vaporisation(gas, liquid)
    other = write_run(write_traj, tmp_path, "o", 1, GAS, head="b")
    with pytest.raises(InputError, match="with the head a and the gas with b"):
        heat_of_vaporisation(liquid, other)
    with pytest.raises(InputError, match="log.csv does not exist"):
        heat_of_vaporisation(liquid, tmp_path)
    cold = write_run(write_traj, tmp_path, "c", 1, GAS, temperature=250.0)
    assert any("250.0 K" in note for note in heat_of_vaporisation(liquid, cold).notes)
