"""Replicas: equal to single runs, one batch, harmless to each other, gone on with together."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.stats import chi2, kstest

from omnicalc import load_potential
from omnicalc.errors import InputError, RunError
from omnicalc.md.folder import RunFolder
from omnicalc.md.gang import Gang
from omnicalc.md.job import build_job
from omnicalc.md.replicas import _means, replica_folder, run_replicas
from omnicalc.md.restart import Restart
from omnicalc.md.run import run
from omnicalc.md.settings import MAX_SEED, Settings
from omnicalc.potential import BoundPotential
from omnicalc.signals import StopWish
from tests.lennard_jones import lennard_jones

from .conftest import bytes_of
from .toy import Pairs, argon, pairs_job

SETTINGS = Settings(steps=12, timestep_fs=4.0, temperature_K=90.0, interval=3, restart_interval=5, seed=11)
NPT = replace(SETTINGS, ensemble="npt", barostat="mc", barostat_interval=2)


def lj_job(atoms=None):
    atoms = argon() if atoms is None else atoms
    return build_job(atoms, lennard_jones(), file="argon.xyz", read_options={})


def state_of(folder: Path):
    return Restart.read(folder / "restart.npz").state


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, ensemble="npt", thermostat="bussi"), NPT])
def test_a_replica_repeats_the_run_of_its_seed(tmp_path, settings):
    settings = replace(settings, barostat_interval=2)
    run_replicas(lj_job(), settings, RunFolder(tmp_path / "all"), 3)
    for k in range(3):
        run(lj_job(), replace(settings, seed=11 + k), RunFolder(tmp_path / str(k)))
        mine, alone = state_of(tmp_path / "all" / f"replica_{k}"), state_of(tmp_path / str(k))
        assert (mine.positions - alone.positions).abs().max() < 1e-10
        assert (mine.cell - alone.cell).abs().max() < 1e-10
    other = state_of(tmp_path / "all" / "replica_1")
    assert (other.positions - mine.positions).abs().max() > 1e-3


def test_with_the_native_kernel_bit_for_bit(tmp_path):
    atoms = molecule("H2O", cell=[3.4] * 3, pbc=True).repeat(2)
    potential = load_potential("ubio-s3", device="cpu")
    job = build_job(atoms, potential, file="w.xyz", read_options={})
    if not job.model["kernel"].startswith("native"):
        pytest.skip("the native kernel was not built")
    settings = Settings(steps=9, interval=3, restart_interval=4, seed=3)
    run_replicas(job, settings, RunFolder(tmp_path / "all"), 2)
    for k in range(2):
        run(build_job(atoms, potential, file="w.xyz", read_options={}), replace(settings, seed=3 + k),
            RunFolder(tmp_path / str(k)))  # fmt: skip
        assert bytes_of(tmp_path / "all" / f"replica_{k}") == bytes_of(tmp_path / str(k))


def test_all_force_calls_are_one_batch(tmp_path, monkeypatch):
    sizes, call = [], BoundPotential.__call__
    monkeypatch.setattr(
        BoundPotential, "__call__", lambda self, x, **more: sizes.append(len(x)) or call(self, x, **more)
    )
    run_replicas(lj_job(), SETTINGS, RunFolder(tmp_path / "run"), 4)
    assert sizes == [4 * 32] * 13


class OneFails:
    """Copies of a bound potential, the second of which gives no number from its fifth call on."""

    def __init__(self, inner, numbers=None, number: int = 0):
        self.inner, self.numbers, self.number, self.calls = inner, numbers or itertools.count(), number, 0

    def __deepcopy__(self, memo):
        return OneFails(Pairs(self.inner.systems), self.numbers, next(self.numbers))

    def __call__(self, positions, **more):
        found = self.inner(positions, **more)
        self.calls += 1
        if self.number == 1 and self.calls > 4:
            found.forces[3] = float("nan")
        return found


def test_a_replica_that_stops_does_not_stop_the_others(tmp_path):
    job = pairs_job()
    with pytest.raises(RunError, match=r"1 of 3 replicas stopped; replica 1: at step 4 .* atom 3 \(Ar\)"):
        run_replicas(replace(job, bound=OneFails(job.bound)), SETTINGS, RunFolder(tmp_path / "run"), 3)
    steps = [state_of(tmp_path / "run" / f"replica_{k}").step for k in range(3)]
    assert steps == [12, 3, 12]
    with (tmp_path / "run" / "replicas.csv").open() as file:
        assert [row["last_step"] for row in csv.DictReader(file)] == ["12", "3", "12"]
    run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "run"), 3, resume=True)
    assert state_of(tmp_path / "run" / "replica_1").step == 12


def test_a_start_that_fails_writes_nothing(tmp_path):
    job = pairs_job()
    job.bound.epsilon = float("nan")
    with pytest.raises(RunError, match="not finite"):
        run_replicas(job, SETTINGS, RunFolder(tmp_path / "run"), 3)
    assert not (tmp_path / "run").exists()


def test_too_many_threads_are_told(tmp_path, monkeypatch):
    begin, started = threading.Thread.start, itertools.count()

    def limited(thread):
        if next(started) == 2:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RunError, match="only 2 of 3 replicas got a thread .*--replicas"):
        run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "run"), 3)
    assert not (tmp_path / "run").exists()


def test_resumed_from_unequal_steps_they_meet_again(tmp_path):
    """Two replicas one restart file ahead of the third go back to its step, so that the batch is the same."""
    run_replicas(lj_job(), SETTINGS, RunFolder(tmp_path / "whole"), 3)
    folder = RunFolder(tmp_path / "run")
    run_replicas(lj_job(), replace(SETTINGS, steps=10), folder, 3)
    (folder.path / "replica_2" / "restart.previous.npz").replace(folder.path / "replica_2" / "restart.npz")
    said = []
    run_replicas(lj_job(), SETTINGS, folder, 3, resume=True, say=said.append)
    assert any("at step 5" in text for text in said)
    for k in range(3):
        assert bytes_of(folder.path / f"replica_{k}") == bytes_of(tmp_path / "whole" / f"replica_{k}")


def test_one_that_never_began_begins_and_the_others_with_it(tmp_path):
    """Killed while the last replica had no restart file yet, or no folder."""
    run_replicas(lj_job(), SETTINGS, RunFolder(tmp_path / "whole"), 3)
    folder = RunFolder(tmp_path / "run")
    run_replicas(lj_job(), replace(SETTINGS, steps=4), folder, 3)
    shutil.rmtree(folder.path / "replica_2")
    run_replicas(lj_job(), SETTINGS, folder, 3, resume=True)
    for k in range(3):
        assert bytes_of(folder.path / f"replica_{k}") == bytes_of(tmp_path / "whole" / f"replica_{k}")


def test_a_signal_stops_all_at_the_same_step(tmp_path):
    calls = itertools.count(1)

    class Interrupted(Pairs):
        def __call__(self, positions, **more):
            if next(calls) == 14:  # of the second replica, in its fifth call
                signal.raise_signal(signal.SIGTERM)
            return super().__call__(positions, **more)

    job = pairs_job()
    job = replace(job, bound=Interrupted(job.bound.systems))
    results = run_replicas(job, SETTINGS, RunFolder(tmp_path / "run"), 3)
    assert {(result.step, result.signal) for result in results} == {(results[0].step, signal.SIGTERM)}
    assert 0 < results[0].step < 12
    run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "run"), 3, resume=True)
    run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "whole"), 3)
    for k in range(3):
        assert bytes_of(tmp_path / "run" / f"replica_{k}") == bytes_of(tmp_path / "whole" / f"replica_{k}")


def test_what_cannot_be(tmp_path, quick_plots):
    folder = RunFolder(tmp_path / "run")
    for count in (0, -1, 10**6):
        with pytest.raises(InputError, match="--replicas"):
            run_replicas(pairs_job(), SETTINGS, folder, count)
    with pytest.raises(InputError, match="--seed"):
        run_replicas(pairs_job(), replace(SETTINGS, seed=MAX_SEED), folder, 2)
    run_replicas(pairs_job(), SETTINGS, folder, 2)
    assert json.loads(folder.record.read_text())["replicas"] == 2
    with pytest.raises(InputError, match="replicas was 2, now 3"):
        run_replicas(pairs_job(), SETTINGS, folder, 3, resume=True)
    with pytest.raises(InputError, match="replicas was 2, now none"):
        run(pairs_job(), SETTINGS, folder, resume=True)
    with pytest.raises(InputError, match="finished at step 12"):
        run_replicas(pairs_job(), SETTINGS, folder, 2, resume=True)
    with pytest.raises(InputError, match="--resume"):
        run_replicas(pairs_job(), SETTINGS, folder, 2)
    longer = run_replicas(pairs_job(), replace(SETTINGS, steps=15), folder, 2, resume=True)
    assert [result.step for result in longer] == [15, 15]


ALIKE = {  # start with velocities, settings: whether all would be one trajectory
    (True, "nve"): {"ensemble": "nve"},
    (True, "nhc"): {"thermostat": "nhc"},
    (True, "frozen"): {"temperature_K": 0.0},
    (False, "at rest"): {"ensemble": "nve", "temperature_K": 0.0},
}
DIFFERENT = {
    (False, "nve"): {"ensemble": "nve"},
    (False, "nhc"): {"thermostat": "nhc"},
    (True, "langevin"): {},
    (True, "bussi"): {"thermostat": "bussi"},
    (True, "nhc, npt"): {"thermostat": "nhc", "ensemble": "npt", "barostat": "mc", "barostat_interval": 2},
    (True, "warming"): {"temperature_K": 0.0, "temperature_end_K": 90.0},
}


@pytest.mark.parametrize("case", [*ALIKE, *DIFFERENT], ids=str)
def test_copies_that_would_be_one_trajectory_are_refused(tmp_path, case):
    atoms, folder = argon(), RunFolder(tmp_path / "run")
    if case[0]:
        atoms.set_velocities(0.01 * np.random.default_rng(0).normal(size=(32, 3)))
    settings = replace(SETTINGS, **(ALIKE | DIFFERENT)[case])
    if case in DIFFERENT:
        run_replicas(pairs_job(atoms), settings, folder, 2)
        assert not torch.equal(*(state_of(folder.path / f"replica_{k}").positions for k in range(2)))
        return
    with pytest.raises(InputError, match=r"all 2 replicas would be one trajectory: .*--thermostat langevin"):
        run_replicas(pairs_job(atoms), settings, folder, 2)
    assert not folder.path.exists()
    for k in range(2):  # as they would
        run(pairs_job(atoms), replace(settings, seed=settings.seed + k), RunFolder(tmp_path / str(k)))
    assert bytes_of(tmp_path / "0") == bytes_of(tmp_path / "1")
    run_replicas(pairs_job(atoms), settings, folder, 1)


def test_copies_of_before_go_on(tmp_path, monkeypatch):
    """A version that did not refuse them wrote folders that may still be extended."""
    settings, folder = replace(SETTINGS, ensemble="nve", temperature_K=0.0), RunFolder(tmp_path / "run")
    with monkeypatch.context() as before:
        before.setattr("omnicalc.md.replicas.check_differ", lambda *arguments: None)
        run_replicas(pairs_job(), settings, folder, 2)
    assert run_replicas(pairs_job(), replace(settings, steps=15), folder, 2, resume=True)[0].step == 15


def test_a_table_that_fails_hides_no_error_of_a_replica(tmp_path, monkeypatch):
    job = pairs_job()

    def full(path, data):
        raise RunError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr("omnicalc.md.replicas.replace_file", full)
    with pytest.raises(RunError, match=r"replica 1: at step 4 .*its state at step 3 is kept"):
        run_replicas(replace(job, bound=OneFails(job.bound)), SETTINGS, RunFolder(tmp_path / "a"), 3)
    with pytest.raises(RunError, match=r"cannot write .*replicas\.csv"):
        run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "b"), 3)


LAST = ("replica_0/energy.png", "replica_1/temperature.png", "replicas.csv")


@pytest.mark.parametrize("old", [False, True])
def test_what_a_kill_at_the_end_came_before_is_written_by_resume(tmp_path, quick_plots, old):
    """A table or plots that are not there, or are those of the run before it was extended."""
    folder = RunFolder(tmp_path / "run")
    run_replicas(pairs_job(), SETTINGS, folder, 2)
    for name in LAST:
        path = folder.path / name
        before = path.read_bytes()
        path.write_bytes(b"old")
        os.utime(path, (1, 1))
        if not old:
            path.unlink()
        results = run_replicas(pairs_job(), SETTINGS, folder, 2, resume=True)
        assert [(result.step, result.finished) for result in results] == [(12, True)] * 2
        assert path.read_bytes() == before
        with pytest.raises(InputError, match="finished at step"):
            run_replicas(pairs_job(), SETTINGS, folder, 2, resume=True)


def first_kinetic_energies(tmp_path) -> np.ndarray:
    """2K/kT of forty replicas at their start."""
    settings = replace(SETTINGS, steps=1, interval=1)
    folder = RunFolder(tmp_path / "run")
    run_replicas(pairs_job(argon(1)), settings, folder, 40)
    values = []
    for k in range(40):
        lines = (replica_folder(folder.path, k, 40) / "log.csv").read_text().splitlines()
        values.append(2 * float(lines[1].split(",")[3]) / (8.617333262e-5 * 90.0))
    return np.array(values)


def test_replicas_are_independent_samples(tmp_path, monkeypatch):
    """Their kinetic energies are chi-squared; the wrong variant, one seed for all, is seen."""
    assert kstest(first_kinetic_energies(tmp_path / "a"), chi2(12).cdf).pvalue > 0.01

    def one_seed(value, **changed):
        changed.pop("seed", None)
        return replace(value, **changed)

    monkeypatch.setattr("omnicalc.md.replicas.replace", one_seed)
    assert kstest(first_kinetic_energies(tmp_path / "b"), chi2(12).cdf).pvalue < 1e-6


def test_an_error_of_the_batch_reaches_every_member():
    class Broken(Pairs):
        def __call__(self, positions, **more):
            raise RuntimeError("no memory")

    gang = Gang(Broken(pairs_job().bound.systems), 1, StopWish())
    gang._requests = {0: (torch.zeros(32, 3), False)}
    gang._compute()
    with pytest.raises(RuntimeError, match="no memory"):
        gang.request(0, torch.zeros(32, 3), False)


AFTER_A_FORK = """
import os, sys, threading, torch
from omnicalc.md.gang import renew_thread_pool

def member(barrier, failed):
    barrier.wait()
    try:
        torch.linalg.det(torch.eye(3))
    except RuntimeError as error:
        failed.append(error)

def child():
    if sys.argv[1] == "renewed":
        renew_thread_pool()
    barrier, failed = threading.Barrier(6), []
    threads = [threading.Thread(target=member, args=(barrier, failed)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(len(failed))

torch.set_num_threads(1)
torch.linalg.det(torch.eye(3))
bad = 0
for _ in range(25):
    process = os.fork()
    if process == 0:
        child()
    bad += os.waitpid(process, 0)[1] != 0
print(bad)
"""


def failures_after_a_fork(how: str) -> int:
    """Of 25 forked processes in which six threads use torch at once."""
    ended = subprocess.run([sys.executable, "-c", AFTER_A_FORK, how], capture_output=True, text=True, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_of_a_forked_process_find_a_thread_pool():
    if failures_after_a_fork("as it is") == 0:
        pytest.skip("this torch, or this machine, does not show the race")
    assert failures_after_a_fork("renewed") == 0


def test_means_of_long_logs_take_little_memory(tmp_path):
    log, lines = tmp_path / "log.csv", 20_000
    potential, kelvin = np.random.default_rng(0).normal(size=(2, lines)).round(4)
    header = "step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K\n"
    rows = [f"{10 * k},{k},{u},0.0,0.0,{t}\n" for k, (u, t) in enumerate(zip(potential, kelvin, strict=True))]
    log.write_text("".join([header, *rows]))
    tracemalloc.start()
    found = _means(log)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    half = lines // 2
    means = f"{potential[half:].mean():.8f}", f"{kelvin[half:].mean():.4f}"
    assert found == [str(10 * (lines - 1)), str(half), *means]
    assert peak < 100 * lines  # bytes
    log.write_text(header)
    assert _means(log) == ["0", "0", "nan", "nan"]
