"""The engine: what lies in a run's folder, when it refuses, when it stops, and how it goes on."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest
import torch
from ase import units
from ase.constraints import FixBondLength

from omnicalc.errors import InputError, RunError
from omnicalc.md.files import replace_file
from omnicalc.md.folder import RunFolder
from omnicalc.md.record import describe
from omnicalc.md.replicas import run_replicas
from omnicalc.md.restart import Restart, previous
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.systems import Systems

from .conftest import bytes_of, log_of
from .toy import Failing, Pairs, argon, job, pairs_job

SETTINGS = Settings(
    steps=20, timestep_fs=4.0, temperature_K=90.0, ensemble="nvt", interval=4, restart_interval=6, seed=11
)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:MDAnalysis")


def snapshot(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != ".lock"} if path.exists() else {}


def frames_of(folder: RunFolder) -> np.ndarray:
    u = MDAnalysis.Universe(str(folder.topology), str(folder.trajectory))
    return np.array([ts.positions.copy() for ts in u.trajectory])


def test_a_run_leaves_its_folder_complete(tmp_path, with_plots):
    folder = RunFolder(tmp_path / "deep" / "run")
    result = run(pairs_job(threads=1), SETTINGS, folder)
    assert result.finished and result.step == 20 and result.signal is None
    assert {p.name for p in folder.path.iterdir()} == {*RunFolder.NAMES, ".lock"}
    log = log_of(folder)
    assert [row["step"] for row in log] == [0, 4, 8, 12, 16, 20]
    assert [row["time_fs"] for row in log] == [0, 16, 32, 48, 64, 80]
    for row in log:
        assert row["total_eV"] == pytest.approx(row["potential_eV"] + row["kinetic_eV"], abs=2e-8)
    frames = frames_of(folder)
    assert frames.shape == (6, 32, 3)
    assert frames[0] == pytest.approx(argon().positions, abs=1e-5)
    record = json.loads(folder.record.read_text())
    assert (
        record["settings"]["seed"] == 11 and record["model"]["sha256"] == "ab" * 32 and record["model"]["head"] == "toy"
    )
    assert record["degrees_of_freedom"] == 96 and {"torch", "omnicalc"} <= record["versions"].keys()
    assert folder.energy_plot.read_bytes()[:4] == b"\x89PNG"
    assert folder.timing.read_text().splitlines()[0] == "utc,step,elapsed_s,steps_per_s,ns_per_day"


@pytest.mark.parametrize(("ensemble", "freedom"), [("nvt", 96), ("nve", 93)])
def test_temperature_has_the_right_degrees_of_freedom(tmp_path, ensemble, freedom):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, ensemble=ensemble), folder)
    assert json.loads(folder.record.read_text())["degrees_of_freedom"] == freedom
    for row in log_of(folder):
        assert row["temperature_K"] == pytest.approx(2 * row["kinetic_eV"] / (freedom * units.kB), abs=1e-3)


def test_nve_keeps_energy_and_the_centre_of_mass(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, ensemble="nve", timestep_fs=2.0), folder)
    energy = [row["total_eV"] for row in log_of(folder)]
    assert np.ptp(energy) < 1e-5
    state = Restart.read(folder.restart).state
    assert (state.masses[:, None] * state.velocities).sum(dim=0).abs().max() < 1e-10


@pytest.mark.parametrize("ensemble", ["nvt", "nve"])
def test_velocities_of_the_structure_are_used(tmp_path, ensemble):
    atoms = argon()
    atoms.set_velocities(np.random.default_rng(0).normal(size=(32, 3)) * 0.02)
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(atoms), replace(SETTINGS, ensemble=ensemble), folder)
    v = atoms.get_velocities() - (atoms.get_velocities().mean(axis=0) if ensemble == "nve" else 0)
    assert log_of(folder)[0]["kinetic_eV"] == pytest.approx(0.5 * 39.95 * (v**2).sum(), rel=1e-4)


def test_the_seed_decides(tmp_path):
    a, b, c = (RunFolder(tmp_path / name) for name in "abc")
    run(pairs_job(), SETTINGS, a)
    run(pairs_job(), SETTINGS, b)
    run(pairs_job(), replace(SETTINGS, seed=12), c)
    assert bytes_of(a) == bytes_of(b) and bytes_of(a)[0] != bytes_of(c)[0]


# resume


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ensemble", ["nvt", "nve"])
@pytest.mark.parametrize("first", [5, 8, 19])
def test_an_extended_run_equals_a_long_one(tmp_path, ensemble, first, dtype):
    def fresh():
        atoms = argon()
        return job(atoms, Pairs(Systems.from_atoms(atoms), dtype))

    settings = replace(SETTINGS, ensemble=ensemble)
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(fresh(), settings, long)
    run(fresh(), replace(settings, steps=first), short)
    run(fresh(), settings, short, resume=True)
    assert bytes_of(short) == bytes_of(long)
    assert short.restart.read_bytes() == long.restart.read_bytes()
    record = json.loads(short.record.read_text())
    assert record["settings"]["steps"] == 20 and [r["step"] for r in record["resumed"]] == [first]


def test_the_neighbour_list_is_rebuilt_where_it_was(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, steps=10), folder)
    saved = Restart.read(folder.restart)
    again, seen = pairs_job(), []
    rebuild = again.bound.neighbor_list.rebuild_at
    again.bound.neighbor_list.rebuild_at = lambda systems: seen.append(systems.positions) or rebuild(systems)
    run(again, SETTINGS, folder, resume=True)
    assert torch.equal(seen[0], saved.reference) and not torch.equal(seen[0], saved.state.positions)


CHANGES = {
    "timestep_fs": ({"timestep_fs": 2.0}, {}),
    "temperature_K": ({"temperature_K": 91.0}, {}),
    "ensemble": ({"ensemble": "nve"}, {}),
    "friction_per_fs": ({"friction_per_fs": 0.02}, {}),
    "seed": ({"seed": 12}, {}),
    "interval": ({"interval": 5}, {}),
    "head": ({}, {"head": "other"}),
    "dtype": ({}, {"dtype": "float32"}),
    "device": ({}, {"device": "cuda"}),
    "skin": ({}, {"skin": 1.0}),
    r"weights \(sha256\)": ({}, {"sha256": "cd" * 32}),
}


@pytest.mark.parametrize("field", [*CHANGES, "structure"])
def test_resume_refuses_another_run_and_names_the_field(tmp_path, field):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), SETTINGS, folder)
    before = snapshot(folder.path)
    settings, model = CHANGES.get(field, ({}, {}))
    atoms = argon()
    if field == "structure":
        atoms.positions[3, 1] += 1e-9
    with pytest.raises(InputError, match=rf"{field} was .*, now .*--out"):
        run(pairs_job(atoms, **model), replace(SETTINGS, steps=40, **settings), folder, resume=True)
    assert snapshot(folder.path) == before


def test_resume_allows_another_restart_interval(tmp_path):
    a, b = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    run(pairs_job(), SETTINGS, a)
    run(pairs_job(), replace(SETTINGS, steps=9), b)
    run(pairs_job(), replace(SETTINGS, restart_interval=1), b, resume=True)
    assert bytes_of(a) == bytes_of(b)


def killed_at_plots(monkeypatch, *arguments, **keywords) -> None:
    """A run that is killed while it writes the second of its plots."""

    def killed(log, first, second, **more):
        replace_file(first, log.read_bytes())
        second.with_name(f".{second.name}.part").write_bytes(b"torn")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("omnicalc.md.loop.plots.draw", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*arguments, **keywords)


@pytest.mark.parametrize("before", [0, 8])
def test_plots_that_a_kill_came_before_are_drawn_by_resume(tmp_path, monkeypatch, quick_plots, before):
    """Also where there are older ones, of the run before it was extended."""
    settings, folder = replace(SETTINGS, ensemble="npt", barostat="mc"), RunFolder(tmp_path / "run")
    if before:
        run(pairs_job(), replace(settings, steps=before), folder)
    killed_at_plots(monkeypatch, pairs_job(), settings, folder, resume=bool(before))
    assert folder.temperature_plot.exists() == bool(before)
    kept, said = snapshot(folder.path), []
    result = run(pairs_job(), settings, folder, resume=True, say=said.append)
    assert result.finished and result.step == 20 and "are drawn now" in said[0]
    now = snapshot(folder.path)
    drawn = {"energy.png", "temperature.png", "cell.png"}
    assert all(now.pop(name) == now["log.csv"] for name in drawn)
    assert now == {name: kept[name] for name in kept if name not in drawn and not name.endswith(".part")}
    with pytest.raises(InputError, match="finished at step 20"):
        run(pairs_job(), settings, folder, resume=True)


def test_plots_of_a_run_that_goes_on_wait_for_its_end(tmp_path, monkeypatch, quick_plots):
    folder = RunFolder(tmp_path / "run")
    killed_at_plots(monkeypatch, pairs_job(), SETTINGS, folder)
    assert run(pairs_job(), replace(SETTINGS, steps=24), folder, resume=True).step == 24
    assert folder.temperature_plot.read_bytes() == folder.log.read_bytes()


def test_resume_of_a_finished_run(tmp_path, quick_plots):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), SETTINGS, folder)
    before = snapshot(folder.path)
    with pytest.raises(InputError, match="finished at step 20.*--steps"):
        run(pairs_job(), SETTINGS, folder, resume=True)
    with pytest.raises(InputError, match="finished at step 20.*--steps"):
        run(pairs_job(), replace(SETTINGS, steps=12), folder, resume=True)
    assert snapshot(folder.path) == before


def test_resume_of_nothing_starts_and_says_so(tmp_path):
    said, a, b = [], RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    run(pairs_job(), SETTINGS, a, resume=True, say=said.append)
    run(pairs_job(), SETTINGS, b)
    assert "nothing to resume" in said[0] and bytes_of(a) == bytes_of(b)


LOSSES = {
    "restart files": "no whole restart file beside traj.dcd of 6 frames",
    "cut log": r"log\.csv has 100 bytes where \d+ are needed",
    "foreign log": r"log\.csv is not the log of this run \(its header differs\)",
    "foreign line": r"log\.csv is not the log of this run \(its first line has no total_eV\)",
    "foreign trajectory": r"traj\.dcd is not the trajectory of this run",
} | {name: f"{name} is missing" for name in ("traj.dcd", "log.csv", "frames.xyz", "frames.traj", "traj.xtc")}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_with_something_missing_is_never_started_over(tmp_path, loss):
    folder, settings = RunFolder(tmp_path / "run"), replace(SETTINGS, ensemble="nve", save="extxyz,traj,xtc")
    run(pairs_job(), settings, folder)
    if loss == "restart files":
        folder.restart.unlink()
        previous(folder.restart).write_bytes(b"rubbish")
    elif loss == "cut log":
        folder.log.write_bytes(folder.log.read_bytes()[:100])
    elif loss.startswith("foreign"):
        file = folder.trajectory if "trajectory" in loss else folder.log
        data = file.read_bytes()
        first = data.index(b"\n") + 1 if "line" in loss else 0
        file.write_bytes(data[:first] + b"#" * (len(data) - first))
    else:
        (folder.path / loss).unlink()
    before = snapshot(folder.path)
    with pytest.raises(RunError, match=f"{LOSSES[loss]}.*nothing was changed"):
        run(pairs_job(), replace(settings, steps=40), folder, resume=True)
    assert snapshot(folder.path) == before


def test_centres_of_rings_that_are_gone_are_told(tmp_path):
    run(pairs_job(), replace(SETTINGS, beads=2, steps=4), folder := RunFolder(tmp_path / "run"))
    folder.centroids.unlink()
    before = snapshot(folder.path)
    with pytest.raises(RunError, match=r"centroid\.dcd is missing; nothing was changed"):
        run(pairs_job(), replace(SETTINGS, beads=2), folder, resume=True)
    assert snapshot(folder.path) == before


def test_only_nve_needs_the_first_line_of_its_log(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), SETTINGS, folder)
    header, first, rest = folder.log.read_bytes().split(b"\n", 2)
    folder.log.write_bytes(b"\n".join([header, b"#" * len(first), rest]))
    assert run(pairs_job(), replace(SETTINGS, steps=40), folder, resume=True).finished


def test_a_file_cut_behind_the_restart_file_before_costs_only_the_steps_since(tmp_path):
    settings = replace(SETTINGS, save="extxyz")
    whole, folder = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    run(pairs_job(), settings, whole)
    run(pairs_job(), settings, folder)
    file = folder.path / "frames.xyz"
    file.write_bytes(file.read_bytes()[:-10])
    run(pairs_job(), settings, folder, resume=True)
    assert snapshot(folder.path)["frames.xyz"] == snapshot(whole.path)["frames.xyz"]
    assert bytes_of(folder) == bytes_of(whole)


def test_a_turned_cell_is_mentioned(tmp_path):
    said, atoms = [], argon()
    atoms.rotate(30, (1, 1, 0), rotate_cell=True)
    run(pairs_job(atoms), SETTINGS, RunFolder(tmp_path / "a"), say=said.append)
    assert "turned" in said[0]
    run(pairs_job(), SETTINGS, RunFolder(tmp_path / "b"), say=said.append)
    assert len(said) == 1


def test_another_thread_count_is_pointed_out(tmp_path):
    folder, said = RunFolder(tmp_path / "run"), []
    run(pairs_job(threads=1), SETTINGS, folder)
    run(pairs_job(threads=2), replace(SETTINGS, steps=24), folder, resume=True, say=said.append)
    assert any("threads" in line for line in said)


# folders that are taken


def test_a_folder_with_a_run_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    run(pairs_job(), SETTINGS, folder)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="--resume.*--out"):
        run(pairs_job(), SETTINGS, folder)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["traj.dcd", "log.csv", "topology.pdb"])
def test_files_of_others_are_never_touched(tmp_path, name, resume):
    (tmp_path / name).write_text("precious")
    (tmp_path / "notes.txt").write_text("may stay")
    with pytest.raises(InputError, match=f"{name}.*--out"):
        run(pairs_job(), SETTINGS, RunFolder(tmp_path), resume=resume)
    assert snapshot(tmp_path) == {name: b"precious", "notes.txt": b"may stay"}


def test_a_folder_with_other_files_serves(tmp_path):
    (tmp_path / "water.xyz").write_text("input")
    assert run(pairs_job(), SETTINGS, RunFolder(tmp_path)).finished


def test_a_file_in_place_of_the_folder_and_a_damaged_record(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file.*--out"):
        run(pairs_job(), SETTINGS, RunFolder(tmp_path / "file"))
    (tmp_path / "run.json").write_text('{"settings"')
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        run(pairs_job(), SETTINGS, RunFolder(tmp_path), resume=True)


@pytest.mark.parametrize("name", ["settings", "structure", "model", "resumed"])
def test_a_record_without_a_part_is_told(tmp_path, name):
    run(pairs_job(), SETTINGS, folder := RunFolder(tmp_path / "run"))
    for changed in (lambda record: record.pop(name), lambda record: record.update({name: 3})):
        record = json.loads(folder.record.read_text())
        changed(record)
        (tmp_path / "run.json").write_text(json.dumps(record))
        with pytest.raises(InputError, match=rf"run\.json cannot be read .*: '{name}' is missing or damaged; put"):
            RunFolder(tmp_path).read_record()


def test_a_setting_of_another_version_is_told(tmp_path):
    run(pairs_job(), SETTINGS, folder := RunFolder(tmp_path / "run"))
    record = json.loads(folder.record.read_text())
    record["settings"]["foo"] = 1
    folder.write_record(record)
    with pytest.raises(InputError, match=r"run\.json has the setting 'foo', which this version does not know"):
        run(pairs_job(), replace(SETTINGS, steps=40), folder, resume=True)


def test_two_processes_never_share_a_folder(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(InputError, match="another process"):
        run(pairs_job(), SETTINGS, folder)
    assert snapshot(tmp_path) == {}


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), SETTINGS, folder)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"run cannot be written to; a run goes on in .* copy it and give the copy"):
        run(pairs_job(), replace(SETTINGS, steps=24), folder, resume=True)
    with pytest.raises(InputError, match="cannot be written to; give another folder with --out"):
        run(pairs_job(), SETTINGS, RunFolder(tmp_path / "new"))
    assert folder.read_record(to_write=False)["settings"]["steps"] == 20


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_resume_beside_a_run_that_just_starts_says_so(tmp_path, replicas):
    """Another seed is drawn for it, as there is no record yet to take it from; that is not what is wrong."""
    folder, other = RunFolder(tmp_path), replace(SETTINGS, seed=12)
    with folder.locked():
        folder.write_record(describe(SETTINGS, pairs_job().structure, pairs_job().model, 96))
        with pytest.raises(InputError, match="another process is running"):
            if replicas is None:
                run(pairs_job(), other, folder, resume=True)
            else:
                run_replicas(pairs_job(), other, folder, replicas, resume=True)


# stops


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 5000.0])
@pytest.mark.parametrize("call", [8, 10])
def test_bad_forces_stop_the_run_and_lose_nothing(tmp_path, value, call):
    """Call 8 gives the forces of step 8, which has a frame; call 10 those of step 10, which has none."""
    good, folder = RunFolder(tmp_path / "good"), RunFolder(tmp_path / "bad")
    run(pairs_job(), SETTINGS, good)
    atoms = argon()
    with pytest.raises(RunError, match=rf"step {call} the force on atom 3 \(Ar\).*state at step {call - 1} is kept"):
        run(job(atoms, Failing(Pairs(Systems.from_atoms(atoms)), call, value=value)), SETTINGS, folder)
    assert Restart.read(folder.restart).state.step == call - 1
    frames = frames_of(folder)
    assert len(frames) == (call - 1) // 4 + 1 and np.array_equal(frames, frames_of(good)[: len(frames)])
    run(pairs_job(), SETTINGS, folder, resume=True)  # with a potential that has been repaired
    assert bytes_of(folder) == bytes_of(good)


def test_a_bad_energy_stops_the_run(tmp_path):
    job_ = pairs_job()
    inner, calls = job_.bound.__class__.__call__, []

    class Broken(Pairs):
        def __call__(self, positions):
            prediction = inner(self, positions)
            calls.append(1)
            if len(calls) > 5:
                prediction.energy = prediction.energy * float("nan")
            return prediction

    with pytest.raises(RunError, match="at step 5 the energy is not finite"):
        run(job(job_.atoms, Broken(Systems.from_atoms(job_.atoms))), SETTINGS, RunFolder(tmp_path))


def test_a_runaway_temperature_stops_the_run(tmp_path):
    """Kicked by forces below their limit, until the temperature of a logged step is beyond its own."""
    atoms = argon()
    bound = Failing(Pairs(Systems.from_atoms(atoms)), 1, value=900.0)
    with pytest.raises(
        RunError, match=r"at step 4 the temperature is .* above 10000 K; the fastest atom is atom 3 \(Ar\)"
    ):
        run(job(atoms, bound), replace(SETTINGS, guards="jump=off"), folder := RunFolder(tmp_path / "run"))
    assert len(log_of(folder)) == 1 and Restart.read(folder.restart).state.step == 3


@pytest.mark.parametrize("bad", ["forces", "mass", "velocity", "fast", "constraint"])
def test_nothing_is_written_for_a_structure_that_cannot_run(tmp_path, bad):
    atoms = argon()
    bound = Pairs(Systems.from_atoms(atoms))
    if bad == "forces":
        bound = Failing(bound, 0)
    elif bad == "mass":
        atoms.set_masses([0.0] + [39.95] * 31)
    elif bad == "velocity":
        atoms.set_momenta([[np.nan, 0, 0]] + [[0, 0, 0]] * 31)
    elif bad == "fast":
        atoms.set_velocities([[30.0, 0, 0]] * 32)
    else:
        atoms.set_constraint(FixBondLength(0, 1))
    message = {
        "forces": "at step 0 the force on atom 3",
        "mass": "the mass 0",
        "velocity": "momentum",
        "fast": "at step 0 the temperature",
        "constraint": "FixBondLength",
    }
    with pytest.raises((InputError, RunError), match=message[bad]):
        run(job(atoms, bound), SETTINGS, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_signal_is_heeded_and_the_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    job_, calls = pairs_job(), []

    class Signalling(Pairs):
        def __call__(self, positions):
            calls.append(1)
            if len(calls) == 8:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(positions)

    folder, whole = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "whole")
    result = run(job(job_.atoms, Signalling(Systems.from_atoms(job_.atoms))), SETTINGS, folder)
    assert (result.finished, result.step, result.signal) == (False, 7, signal.SIGTERM)
    assert Restart.read(folder.restart).state.step == 7
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    run(pairs_job(), SETTINGS, folder, resume=True)
    run(pairs_job(), SETTINGS, whole)
    assert bytes_of(folder) == bytes_of(whole)


def test_the_process_is_left_as_it_was_found(tmp_path, with_plots):
    import matplotlib

    def settings():
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.random.get_rng_state().tolist(),
            dict(matplotlib.rcParams),
        )

    before = settings()
    run(pairs_job(), SETTINGS, RunFolder(tmp_path))
    assert settings() == before
