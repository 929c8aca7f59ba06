"""Structures that the training data have nothing of are told, once, and others never."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from omnicalc import OmniCalc, load_potential
from omnicalc.errors import OmniCalcWarning
from omnicalc.single_point import single_points
from tests.command import omnicalc

SALT = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
STRANGE = {
    "rock salt": (SALT * 2, "64 of 64"),
    "in a thin cell": (bulk("NaCl", "rocksalt", a=5.64), "2 of 2"),
    "a pair of ions": (Atoms("NaCl", [[0, 0, 0], [4.1, 0, 0]]), "2 of 2"),
    "chlorine": (molecule("Cl2"), "2 of 2"),
    "hydrogen": (molecule("H2"), "2 of 2"),
    "oxygen": (Atoms("O2", [[0, 0, 0], [1.21, 0, 0]]), "2 of 2"),
    "sodium": (bulk("Na", "bcc", a=4.29), "1 of 1"),
    "water without hydrogen": (read("examples/water.xyz")[::3], "64 of 64"),
}


def told(atoms: Atoms, calc: OmniCalc) -> list[str]:
    """What is told of the surroundings in ``atoms``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atoms = atoms.copy()
        atoms.calc = calc
        atoms.get_potential_energy()
    return [str(w.message) for w in caught if "surroundings" in str(w.message)]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_structures_are_told(name):
    atoms, which = STRANGE[name]
    (message,) = told(atoms, OmniCalc("ubio-s3"))
    assert f"{which} atoms are in surroundings" in message and "ubio-s3:small@" in message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_once_and_only_once(dtype):
    calc = OmniCalc("ubio-s3", head="revpbe0-d3", dtype=dtype)
    water = read("examples/water.xyz")
    assert told(water, calc) == []
    assert len(told(SALT * 2, calc)) == 1
    assert told(SALT, calc) == told(water, calc) == []
    # a calculator for each structure, as many scripts make them, says no more; nor do other words, as of another atom
    assert told(SALT, OmniCalc("ubio-s3", head="revpbe0-d3", dtype=dtype)) == []
    assert told(STRANGE["a pair of ions"][0], OmniCalc("ubio-s3", head="revpbe0-d3", dtype=dtype)) == []
    assert len(told(SALT, OmniCalc("ubio-s3:fast", head="revpbe0-d3", dtype=dtype))) == 1


def test_another_head_that_knows_them_is_named():
    """The first head of these weights, which is taken unless one is named, knows a molecule without methyl groups."""
    (message,) = told(molecule("CH3CH2OH"), OmniCalc("ubio-s3:organics"))
    assert message.endswith("may mean nothing; head 'pbe-d3/def2-svp' or 'ethanol-methanol' has")
    assert told(molecule("CH3CH2OH"), OmniCalc("ubio-s3:organics", head="ethanol-methanol")) == []
    (message,) = told(SALT, OmniCalc("ubio-s3"))
    assert message.endswith("may mean nothing")


def test_ordinary_structures_are_not():
    for atoms in (read("examples/water.xyz"), molecule("H2O"), read("examples/water.xyz") * (1, 1, 2)):
        for model in ("ubio-s3", "ubio-s3:fast", "ubio-s3:wide"):
            assert told(atoms, OmniCalc(model)) == []
    swollen = read("examples/water.xyz")
    swollen.cell[2] *= 3  # an interface with vacuum
    assert told(swollen, OmniCalc("ubio-s3")) == []


def test_weights_without_the_table_say_nothing():
    assert load_potential("ubio-s3:small@0.1").known_surroundings == {}
    assert told(SALT * 2, OmniCalc("ubio-s3:small@0.1")) == []


def test_bounds_that_hold_it_say_nothing(monkeypatch):
    """Were all of the crystal's numbers in the data, nothing would be told."""
    calc = OmniCalc("ubio-s3")
    known = calc.potential.known_surroundings["revpbe0-d3"]
    for name, bound in {"most": 20, "shell": 20, "least": 0, "fewest": 0, "closest": 0, "farthest": 9}.items():
        getattr(known, name)[:] = bound
    assert told(SALT * 2, calc) == []


def test_a_long_run_of_one_calculator_is_looked_at_again():
    calc = OmniCalc("ubio-s3", head="revpbe0-d3")
    atoms = Atoms("OHHOHH", np.concatenate([molecule("H2O").positions, molecule("H2O").positions + [3.5, 0, 0]]))
    assert told(atoms, calc) == []
    atoms.positions[1:3, 1] *= 0.4  # both O-H on top of each other
    atoms.positions[1:3, 2] -= 0.5
    assert told(atoms, calc) == []
    found = [told(atoms, calc) for k in range(99) if atoms.positions.__iadd__(1e-4) is not None]
    assert sum(map(len, found)) == 1 and len(found[-1]) == 1


def test_many_structures_are_counted():
    frames = [molecule("H2O"), molecule("H2"), molecule("H2O"), molecule("H2")]
    with pytest.warns(OmniCalcWarning, match=r"structure 1 \(from 0\): H \(atom 0\) has .*; 2 of 4 structures have"):
        list(single_points(frames, OmniCalc("ubio-s3")))


def test_commands_tell_it_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (SALT * 2).write("salt.xyz")
    with pytest.warns(OmniCalcWarning, match=r"Na \(atom 0\) has 12 Na .*; 64 of 64 atoms are in") as caught:
        omnicalc("relax", "salt.xyz")
    assert len(caught) == 1
    found = omnicalc("md", "salt.xyz", "--steps", 4, "--interval", 1, "--out", "run")
    assert found.count("surroundings") == 1 and "warning: at step 0 atom 0 (Na) has 12 Na" in found
    found = omnicalc("md", "salt.xyz", "--steps", 2, "--out", "off", "--guard", "surroundings=off")
    assert "surroundings" not in found
