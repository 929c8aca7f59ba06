"""``omnicalc sp`` as it is typed."""

import json

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from omnicalc import OmniCalc
from tests.command import omnicalc, refused
from tests.tiny_weights import write_weights


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """A folder with weights, and three frames of water."""
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "tiny")
    frames = [molecule("H2O") for _ in range(3)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.02, seed=k)
    write("water.xyz", frames)
    return frames


def test_the_last_frame(inside):
    said = omnicalc("sp", "water.xyz", "--model", "./tiny")
    energy = OmniCalc("./tiny").get_property("energy", inside[-1])
    assert f"{energy:.6f} eV" in said and "head water-theory" in said and "stress" not in said


def test_json(inside):
    point = json.loads(omnicalc("sp", "water.xyz", "--model", "./tiny", "--json", "--dtype", "float64"))
    calc = OmniCalc("./tiny", dtype="float64")
    assert np.allclose(point["forces_eV_per_A"], calc.get_property("forces", inside[-1]), atol=1e-6)
    points = json.loads(omnicalc("sp", "water.xyz", "--model", "./tiny", "--json", "--index", "0:2"))
    assert len(points) == 2 and points[0]["energy_eV"] != points[1]["energy_eV"]
    assert len(json.loads(omnicalc("sp", "water.xyz", "--model", "./tiny", "--json", "--index", ":1"))) == 1


def test_a_cell_brings_the_stress():
    said = omnicalc("sp", "water.xyz", "--model", "./tiny", "--cell", "3.5")
    assert "periodic along abc" in said and "GPa" in said
    assert "GPa" not in omnicalc("sp", "water.xyz", "--model", "./tiny", "--cell", "3.5", "--no-stress")
    assert "stress needs a structure periodic" in refused("sp", "water.xyz", "--model", "./tiny", "--stress")


def test_several_frames_as_text():
    said = omnicalc("sp", "water.xyz", "--model", "./tiny", "--index", ":")
    assert "frame 0 of 3" in said and "frame 2 of 3" in said and said.count("energy  ") == 3


def test_head_charge_spin():
    words = ["--head", "salt-theory", "--charge", 0, "--spin", 3]
    said = omnicalc("sp", "water.xyz", "--model", "./tiny", *words)
    assert "head salt-theory" in said and "spin 3" in said
    assert "charge -1" in refused("sp", "water.xyz", "--model", "./tiny", "--charge", "-1")
    assert "odd multiplicity" in refused("sp", "water.xyz", "--model", "./tiny", "--spin", 2)
    assert "unknown head 'other'" in refused("sp", "water.xyz", "--model", "./tiny", "--head", "other")


def test_a_spin_that_nobody_gave_is_told_as_such():
    write("radical.xyz", molecule("OH"))
    command, note = ("sp", "radical.xyz", "--model", "./tiny"), "spin 2 (the lowest possible, none was given)"
    assert note in omnicalc(*command)
    said = omnicalc(*command, "--spin", 2)
    assert "spin 2" in said and note not in said
    assert json.loads(omnicalc(*command, "--json"))["spin_from"] == "lowest"


@pytest.mark.parametrize("kind", ["missing", "rubbish", "empty", "nan", "overlap", "zero cell", "element"])
def test_bad_structures(tmp_path, kind):
    atoms = molecule("H2O", cell=[5, 5, 5], pbc=True)
    if kind == "nan":
        atoms.positions[1, 1] = np.nan
    elif kind == "overlap":
        atoms.positions[1] = atoms.positions[2]
    elif kind == "zero cell":
        atoms.cell[1] = 0
    elif kind == "element":
        atoms.symbols[0] = "S"
    if kind in ("rubbish", "empty"):
        (tmp_path / "bad.xyz").write_text("rub\nbish\n" if kind == "rubbish" else "")
    elif kind != "missing":
        write("bad.xyz", atoms, format="extxyz")
    expected = {
        "missing": "no such file",
        "rubbish": "ASE cannot read it",
        "empty": "empty structure",
        "nan": "atom 1 (H) has the position",
        "overlap": "atom 1 (H) and atom 2 (H) are 0 Å apart",
        "zero cell": "periodic along b but its cell vector is zero",
        "element": "element S",
    }
    assert expected[kind] in refused("sp", "bad.xyz", "--model", "./tiny")


def test_bad_models():
    said = refused("sp", "water.xyz", "--model", "ubio-s33")
    assert "unknown model 'ubio-s33'; did you mean ubio-s3" in said
    assert "for the folder of that name type ./tiny" in refused("sp", "water.xyz", "--model", "tiny")
    assert "float32 or float64" in refused("sp", "water.xyz", "--model", "./tiny", "--dtype", "half")
