"""``omnicalc relax``, and ``sp`` for many structures, as they are typed."""

import csv
import json
import signal

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write

from omnicalc import OmniCalc
from omnicalc.errors import InputError
from omnicalc.relaxation.run import _Files
from tests.command import omnicalc
from tests.tiny_weights import write_weights


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """A folder with weights, two files with three frames of water in all, and a folder of one file each."""
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "tiny")
    frames = [molecule("H2O") for _ in range(3)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    write("water.xyz", frames[:2])
    write("more.xyz", frames[2])
    (tmp_path / "set").mkdir()
    for k, atoms in enumerate(frames):
        write(f"set/{k}.xyz", atoms)
    (tmp_path / "set" / ".hidden").write_text("no structure")
    return frames


def rows(folder) -> list[dict]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_files_and_folders_are_relaxed_together(tmp_path):
    command = ("relax", "water.xyz", "set", "--model", "./tiny", "--fmax", "1e3", "--out", "run")
    said = omnicalc(*command)
    assert "5 with 15 atoms, in 1 batch" in said and "done: 5 of 5 structures (5 converged)" in said
    assert [row["file"] for row in rows(tmp_path / "run")] == ["water.xyz"] * 2 + [f"set/{k}.xyz" for k in range(3)]
    assert len(read("run/structures.xyz", ":")) == 5
    with pytest.raises(InputError, match="--resume"):
        omnicalc(*command)
    assert "done: 5 of 5" in omnicalc(*command, "--resume")


def test_the_default_folder_is_named_after_the_structure(tmp_path):
    omnicalc("relax", "water.xyz", "--model", "./tiny", "--fmax", "1e3", "--index", "-1")
    assert len(rows(tmp_path / "water_relax")) == 1


def test_what_did_not_converge_is_named_with_a_command_that_goes_on(tmp_path):
    """Exit code 3, also when asked again; the command keeps what was typed, and the charge."""
    write_weights(tmp_path / "tiny", charges=(0, 2))
    typed = ("--model", "./tiny", "--fmax", "1e-6", "--steps", "1", "--optimizer", "fire", "--out", "run")
    command = ("relax", "water.xyz", "--charge", "2", "--spin", "3", *typed)
    said = omnicalc(*command, code=3)
    assert "done: 2 of 2 structures (2 unconverged)" in said
    assert "warning: 2 structures (0, 1 in summary.csv) did not converge" in said
    assert [row["status"] for row in rows(tmp_path / "run")] == ["unconverged"] * 2
    next_command = said.strip().splitlines()[-1].strip()
    assert next_command == (
        "omnicalc relax run/structures.xyz --model ./tiny --fmax 1e-06 --optimizer fire --steps 10 --out run/more"
    )
    assert "did not converge" in omnicalc(*command, "--resume", code=3)
    omnicalc(*next_command.split()[1:], "--fmax", "1e3")
    first, second = (read(f"{folder}/structures.xyz") for folder in ("run", "run/more"))
    assert first.info["charge"] == second.info["charge"] == 2 and second.info["spin"] == 3
    assert second.info["status"] == "converged"


@pytest.mark.parametrize("verb", ["relax", "sp"])
def test_stopped_by_a_signal_it_says_how_to_go_on(verb, tmp_path, monkeypatch):
    save = _Files.save

    def stopped(files, *args):
        signal.raise_signal(signal.SIGTERM)
        save(files, *args)

    monkeypatch.setattr(_Files, "save", stopped)
    said = omnicalc(verb, "set", "--model", "./tiny", "--batch-atoms", "3", "--out", "run", code=143)
    next_command = said.strip().splitlines()[-1].strip()
    assert next_command == f"omnicalc {verb} set --model ./tiny --batch-atoms 3 --out run --resume"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "3 of 3 structures" in omnicalc(*next_command.split()[1:])


def test_what_failed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("omnicalc.relaxation.walker._WILD", 1e-9)
    said = omnicalc("relax", "water.xyz", "--model", "./tiny", "--out", "run", code=3)
    assert "(2 failed)" in said and "2 structures (0, 1 in summary.csv) failed" in said
    said = omnicalc("sp", "more.xyz", "--model", "./tiny", "--out", "energies", code=3)
    assert "1 structure (0 in summary.csv) failed" in said


def test_single_points_of_many_are_those_of_one_each(inside):
    points = json.loads(omnicalc("sp", "water.xyz", "more.xyz", "--index", ":", "--model", "./tiny", "--json"))
    calc = OmniCalc("./tiny")
    for point, atoms in zip(points, inside, strict=True):
        assert point["energy_eV"] == pytest.approx(calc.get_property("energy", atoms), abs=1e-5)
        assert np.abs(np.array(point["forces_eV_per_A"]) - calc.get_property("forces", atoms)).max() < 1e-5
    said = omnicalc("sp", "set", "--model", "./tiny")
    assert "set/1.xyz, frame 1 of 3" in said and said.count("energy ") == 3


def test_what_lies_beside_structures_in_a_folder_is_left_out(inside, tmp_path):
    for name in ("README.md", "notes.txt", "table.csv", ".hidden"):
        (tmp_path / "set" / name).write_text("no structure")
    assert omnicalc("sp", "set", "--model", "./tiny").count("energy ") == 3


def test_single_points_into_a_folder(inside, tmp_path):
    command = ("sp", "set", "--model", "./tiny", "--out", "energies", "--batch-atoms", "4", "--dtype", "float64")
    assert "3 of 3 structures" in omnicalc(*command)
    calc = OmniCalc("./tiny", dtype="float64")
    for frame, atoms in zip(read("energies/structures.xyz", ":"), inside, strict=True):
        assert frame.get_potential_energy() == pytest.approx(calc.get_property("energy", atoms), abs=1e-7)
        assert np.abs(frame.get_forces() - calc.get_property("forces", atoms)).max() < 1e-7
    assert [row["status"] for row in rows(tmp_path / "energies")] == ["done"] * 3
    assert "3 of 3 structures" in omnicalc(*command, "--resume")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("relax", "nowhere.xyz"), "no such file"),
        (("relax", "empty"), "without structures"),
        (("relax", "water.xyz", "--steps", "0"), "--steps 0 relaxes nothing; .*omnicalc sp"),
        (("relax", "water.xyz", "--steps", "-1"), "steps is -1"),
        (("relax", "water.xyz", "--optimizer", "bfgs"), "lbfgs, fire"),
        (("relax", "water.xyz", "--relax-cell", "isotropic"), "frame 0: .*--cell"),
        (("relax", "water.xyz", "--fix", "7"), "atoms outside 0 to 2"),
        (("sp", "water.xyz", "--resume"), "--out"),
        (("sp", "water.xyz", "--out", "x", "--json"), "--json"),
        (("sp", "water.xyz", "--batch-atoms", "0"), "--batch-atoms"),
        (("sp", "water.xyz", "--index", ":", "--stress"), "frame 0: stress needs a structure periodic"),
    ],
)
def test_bad_input_leaves_no_trace(tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        omnicalc(*words, "--model", "./tiny")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_direct_forces_are_warned_about():
    command = ("relax", "more.xyz", "--no-pbc", "--fmax", "1e3")
    assert "may end at no minimum" in omnicalc(*command, "--model", "ubio-s1", "--out", "a")
    assert "warning" not in omnicalc(*command, "--model", "ubio-s2", "--out", "b")
