"""Frames that a run's committee knows least about."""

import json

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from omnicalc.data.labels.uncertain import run_record, uncertain_frames
from omnicalc.errors import InputError
from tests.command import omnicalc


@pytest.fixture
def run(tmp_path):
    """Forty frames of water whose first O-H bond swings; the "spread" of the tests is its stretch."""
    frames = []
    for k in range(40):
        atoms = molecule("H2O")
        atoms.set_distance(0, 1, 1.0 + 0.3 * np.sin(2 * np.pi * k / 20), fix=0)
        frames.append(atoms)
    write(tmp_path / "traj.traj", frames)
    _record(tmp_path, pbc=[False] * 3)
    return tmp_path


def _record(folder, pbc):
    record = {"structure": {"pbc": pbc, "charge": 0, "spin": 1}, "model": {"name": "ubio-s3", "head": "pbe0-ts"}}
    (folder / "run.json").write_text(json.dumps(record))


def stretch(atoms):
    return np.array([0.0, abs(atoms.get_distance(0, 1) - 1.0), 0.0])


def test_the_least_known_frames_apart_in_time(run):
    chosen = uncertain_frames(run, run_record(run), stretch, count=4)
    numbers = [int(where.rsplit(" ", 1)[1]) for where, _ in chosen]
    assert numbers == [5, 15, 25, 35]  # the turning points, in the order of time
    assert all(atoms.info["forces_std"] == pytest.approx(0.3, abs=1e-3) for _, atoms in chosen)
    assert all(atoms.info["charge"] == 0 and not atoms.pbc.any() for _, atoms in chosen)


def test_nothing_above_the_limit(run):
    assert len(uncertain_frames(run, run_record(run), stretch, count=40, limit=0.25)) == 12
    with pytest.raises(InputError, match="no frame .* above 1 eV/Å; the largest is 0.3"):
        uncertain_frames(run, run_record(run), stretch, count=4, limit=1.0)


def test_refused(run, tmp_path):
    with pytest.raises(InputError, match="no run.json"):
        omnicalc("label", "--from-uncertain", tmp_path / "nowhere", "--out", tmp_path / "o.extxyz")
    (run / "run.json").write_text("{")
    with pytest.raises(InputError, match="no run.json that can be read"):
        omnicalc("label", "--from-uncertain", run, "--out", tmp_path / "o.extxyz")
    _record(run, pbc=[True] * 3)
    with pytest.raises(InputError, match="periodic; labels are of molecules"):
        omnicalc("label", "--from-uncertain", run, "--out", tmp_path / "o.extxyz")
    _record(run, pbc=[False] * 3)
    with pytest.raises(InputError, match="committee"):  # the bundled weights are none
        omnicalc("label", "--from-uncertain", run, "--method", "gfn2-xtb", "--out", tmp_path / "o.extxyz")
    assert not (tmp_path / "o.extxyz").exists()
