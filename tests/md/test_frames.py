"""Further files of a run: what is in them, that they are cut back and go on exactly, and that bad words are refused."""

import json
import os
from dataclasses import replace

import MDAnalysis
import numpy as np
import pytest
import torch
from ase.io import read
from MDAnalysis.lib.formats import libmdaxdr

from omnicalc.errors import InputError, RunError
from omnicalc.md.folder import RunFolder
from omnicalc.md.restart import Restart, previous
from omnicalc.md.run import run
from omnicalc.md.saving import formats
from omnicalc.md.settings import Settings
from omnicalc.systems import Systems

from .conftest import bytes_of
from .toy import Failing, Pairs, argon, job, pairs_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:MDAnalysis")
SETTINGS = Settings(
    steps=24, timestep_fs=4.0, temperature_K=90.0, interval=4, restart_interval=6, seed=11, ensemble="npt",
    barostat_interval=3, coupling="anisotropic", save="forces,velocities,xtc",
)  # fmt: skip
MORE = ("traj.xtc", "frames.xyz")


def test_what_is_in_them(tmp_path):
    run(pairs_job(), SETTINGS, folder := RunFolder(tmp_path / "run"))
    state, frames = Restart.read(folder.restart).state, read(folder.path / "frames.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 4, 8, 12, 16, 20, 24]
    last = frames[-1]
    assert last.positions == pytest.approx(state.positions.numpy(), abs=1e-7)
    assert last.get_velocities() == pytest.approx(state.velocities.numpy(), abs=1e-7)
    assert last.get_forces() == pytest.approx(state.forces.numpy(), abs=1e-7)
    assert last.get_potential_energy() == pytest.approx(float(state.energy), abs=1e-7)
    assert last.cell.array == pytest.approx(state.cell.numpy(), abs=1e-7) and last.pbc.all()
    dcd, xtc = (MDAnalysis.Universe(str(folder.topology), str(folder.path / f"traj.{kind}")) for kind in ("dcd", "xtc"))
    assert len(dcd.trajectory) == len(xtc.trajectory) == 7
    for a, b in zip(dcd.trajectory, xtc.trajectory, strict=True):
        assert a.positions == pytest.approx(b.positions, abs=0.0051)
        assert a.dimensions == pytest.approx(b.dimensions, abs=2e-3)
        assert b.time == pytest.approx(0.016 * b.frame, abs=1e-6)


@pytest.mark.parametrize("first", [5, 12])
def test_they_go_on_as_if_never_stopped(tmp_path, first):
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(pairs_job(), SETTINGS, long)
    run(pairs_job(), replace(SETTINGS, steps=first), short)
    for name in ("frames.xyz", "traj.xtc"):  # torn: a frame that the restart file does not know
        with (short.path / name).open("ab") as file:
            file.write(b"32\nLattice=")
    run(pairs_job(), SETTINGS, short, resume=True)
    assert bytes_of(short, *MORE) == bytes_of(long, *MORE)


TRAJ = replace(SETTINGS, save="forces,velocities,traj", interval=1, steps=60)


def test_an_ase_trajectory(tmp_path):
    run(pairs_job(), TRAJ, folder := RunFolder(tmp_path / "run"))
    assert not (folder.path / "frames.xyz").exists()
    state, frames = Restart.read(folder.restart).state, read(folder.path / "frames.traj", ":")
    assert [frame.info["step"] for frame in frames] == list(range(61))
    last = frames[-1]
    assert np.array_equal(last.positions, state.positions.numpy()) and last.pbc.all()
    assert np.array_equal(last.get_forces(), state.forces.numpy())
    assert np.array_equal(last.cell.array, state.cell.numpy())
    assert last.get_velocities() == pytest.approx(state.velocities.numpy(), abs=1e-14)
    assert last.get_potential_energy() == float(state.energy)


@pytest.mark.parametrize("first", [5, 40, 43])  # around the 42 frames at which ASE's index moves
def test_an_ase_trajectory_goes_on_as_if_never_stopped(tmp_path, first):
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(pairs_job(), TRAJ, long)
    run(pairs_job(), replace(TRAJ, steps=44, restart_interval=first), short)
    short.restart.unlink()  # the one before is of an earlier step, so that frames are cut off
    assert Restart.read(previous(short.restart)).state.step in (40, 43)
    assert run(pairs_job(), TRAJ, short, resume=True).finished  # a signal to the tests, as of `timeout`, ends it early
    assert (short.path / "frames.traj").read_bytes() == (long.path / "frames.traj").read_bytes()
    assert len(read(short.path / "frames.traj", ":")) == 61


HELD = replace(SETTINGS, ensemble="nvt", fix="0-3", restraints="4-7:2", save="forces,velocities,traj,extxyz")


def test_frames_are_labels_of_the_potential_alone(tmp_path):
    """Springs and held atoms have no part in the energy and forces of a frame; it names what they are."""
    run(pairs_job(), HELD, folder := RunFolder(tmp_path / "run"))
    state, start = Restart.read(folder.restart).state, argon().positions
    for name in ("frames.xyz", "frames.traj"):
        frames = read(folder.path / name, ":")
        for frame in frames:
            found = Pairs(Systems.from_atoms(frame))(torch.tensor(frame.positions))
            assert frame.get_potential_energy() == pytest.approx(float(found.energy), abs=1e-7)
            assert frame.get_forces(apply_constraint=False) == pytest.approx(found.forces.numpy(), abs=1e-6)
            assert frame.constraints[0].index.tolist() == [0, 1, 2, 3]
            springs = np.square(frame.positions - start)[4:8].sum()
            assert frame.info["restraint_energy"] == pytest.approx(springs, abs=1e-6)
        # the wrong variant: what moves the atoms
        last = frames[-1]
        assert np.abs(last.get_forces(apply_constraint=False) - state.forces.numpy()).max() > 0.01
        assert abs(last.get_potential_energy() - float(state.energy)) > 0.01


def test_forces_that_do_not_add_up_are_labels_too(tmp_path):
    """The net force is taken off where the centre of mass is to rest, but not off the frames."""
    pushed = pairs_job(conservative=False)
    inner = pushed.bound

    def pushing(positions):
        found = inner(positions)
        found.forces[0, 0] += 0.5
        return found

    settings = replace(SETTINGS, ensemble="nvt", thermostat="bussi", save="forces", steps=4)
    run(job(pushed.atoms, pushing, conservative=False), settings, folder := RunFolder(tmp_path / "run"))
    for frame in read(folder.path / "frames.xyz", ":"):
        assert frame.get_forces().sum(0) == pytest.approx([0.5, 0, 0], abs=1e-6)
    assert float(Restart.read(folder.restart).state.forces.sum().abs()) < 1e-9


@pytest.mark.parametrize("first", [5, 12])
def test_frames_of_held_atoms_go_on_as_if_never_stopped(tmp_path, first):
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(pairs_job(), HELD, long)
    run(pairs_job(), replace(HELD, steps=first), short)
    run(pairs_job(), HELD, short, resume=True)
    for name in ("frames.xyz", "frames.traj"):
        assert (short.path / name).read_bytes() == (long.path / name).read_bytes()


def test_frames_go_on_after_those_of_an_older_version(tmp_path, monkeypatch):
    """It wrote no constraints: from there on every frame has its own."""
    with monkeypatch.context() as older:
        older.setattr("omnicalc.md.frames.blank", lambda atoms, fix: atoms.copy())
        run(pairs_job(), replace(HELD, steps=12), folder := RunFolder(tmp_path / "run"))
    record = json.loads((folder.path / "run.json").read_text())
    del record["masses"]
    (folder.path / "run.json").write_text(json.dumps(record))
    said: list[str] = []
    run(pairs_job(), replace(HELD, steps=16), folder, resume=True, say=said.append)
    assert "in frames after step 12 energy and forces are the model's own" in "".join(said)
    said.clear()
    run(pairs_job(), HELD, folder, resume=True, say=said.append)
    assert "the model's own" not in "".join(said)
    for name in ("frames.xyz", "frames.traj"):
        frames = read(folder.path / name, ":")
        assert [len(frame.constraints) for frame in frames] == [0, 0, 0, 0, 1, 1, 1]
        assert [frame.info["step"] for frame in frames] == [0, 4, 8, 12, 16, 20, 24]


def test_the_index_of_a_cut_trajectory_matters(tmp_path):
    """The wrong variant: cut without the index, the file is no trajectory of so many frames."""
    run(pairs_job(), TRAJ, folder := RunFolder(tmp_path / "run"))
    file = folder.path / "frames.traj"
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(Exception):  # noqa: B017 - whatever ASE runs into
        read(file, ":")


def test_frames_can_be_computed_again(tmp_path):
    """Charge and spin go with them, without which another energy would come out; what else the file said does not."""
    atoms = argon()
    atoms.info = {"charge": 2, "spin": 1, "config": "from elsewhere"}
    settings = replace(SETTINGS, save="extxyz,traj", guards="temperature=save:1")
    run(pairs_job(atoms), settings, folder := RunFolder(tmp_path / "run"))
    for name in ("frames.xyz", "frames.traj"):
        assert [frame.info for frame in read(folder.path / name, ":2")] == [
            {"step": 0, "time_fs": 0.0, "charge": 2, "spin": 1},
            {"step": 4, "time_fs": 16.0, "charge": 2, "spin": 1},
        ]
    guard = next(folder.path.glob("guard_temperature_*.xyz"))
    assert {key: read(guard).info[key] for key in ("charge", "spin")} == {"charge": 2, "spin": 1}


def test_a_torn_frame_of_the_library_stops_the_run(tmp_path, monkeypatch):
    """A disk that fills while the XTC library writes, which says nothing of it: no frame is lost unnoticed."""
    calls = []

    class OnAFullDisk(libmdaxdr.XTCFile):
        def write(self, *frame):
            calls.append(super().write(*frame))
            if len(calls) == 5:
                self.close()
                os.truncate(next(tmp_path.glob("run/.*.part")), 100)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))  # no temporary file is needed
    monkeypatch.setattr(libmdaxdr, "XTCFile", OnAFullDisk)
    with pytest.raises(RunError, match=r"cannot write a frame of .*traj\.xtc.*state at step 15 is kept"):
        run(pairs_job(), SETTINGS, folder := RunFolder(tmp_path / "run"))
    run(pairs_job(), SETTINGS, folder, resume=True)
    run(pairs_job(), SETTINGS, whole := RunFolder(tmp_path / "whole"))
    assert bytes_of(folder, *MORE) == bytes_of(whole, *MORE)
    assert not list(folder.path.glob(".*.part"))


def test_a_refused_step_leaves_no_frame(tmp_path):
    atoms = argon()
    settings = replace(SETTINGS, ensemble="nvt", save="forces")
    with pytest.raises(RunError, match="step 8"):
        run(job(atoms, Failing(Pairs(Systems.from_atoms(atoms)), 8)), settings, folder := RunFolder(tmp_path / "run"))
    frames = read(folder.path / "frames.xyz", ":")
    assert len(frames) == 2 and not frames[0].has("momenta")


def test_a_file_that_is_gone_is_told(tmp_path):
    run(pairs_job(), SETTINGS, folder := RunFolder(tmp_path / "run"))
    (folder.path / "frames.xyz").unlink()
    with pytest.raises(RunError, match=r"frames\.xyz"):
        run(pairs_job(), replace(SETTINGS, steps=40), folder, resume=True)


def test_files_of_others_are_never_touched(tmp_path):
    (tmp_path / "frames.xyz").write_text("precious")
    with pytest.raises(InputError, match=r"frames\.xyz.*--out"):
        run(pairs_job(), SETTINGS, RunFolder(tmp_path))
    assert (tmp_path / "frames.xyz").read_text() == "precious"


def test_words():
    assert formats("") == [] and formats("forces") == ["extxyz"] and formats("xtc, velocities") == ["extxyz", "xtc"]
    assert formats("traj,forces") == ["traj"] and formats("traj,extxyz") == ["extxyz", "traj"]
    with pytest.raises(InputError, match="'charges' cannot be saved.*--save"):
        Settings(save="forces,charges")
    assert np.array_equal(formats("extxyz"), ["extxyz"])
