"""A run killed at any instant and resumed ends with the same bytes as one left alone."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from omnicalc.md.restart import previous
from tests.forking import Forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

LONG = {
    "steps": 60,
    "interval": 3,
    "restart_interval": 7,
    "timestep_fs": 4.0,
    "temperature_K": 90.0,
    "seed": 5,
}
ENSEMBLES = {  # every thermostat and every barostat, and ramps
    "nve": {"ensemble": "nve"},
    "langevin": {"ensemble": "nvt"},
    "bussi": {"thermostat": "bussi"},
    "nhc": {"thermostat": "nhc"},
    "qtb": {"thermostat": "qtb", "timestep_fs": 1.0, "temperature_K": 300.0},
    "rescale": {"ensemble": "npt", "pressure_bar": 100.0, "barostat_interval": 2},
    "rescale-anisotropic": {
        "ensemble": "npt",
        "thermostat": "bussi",
        "coupling": "anisotropic",
        "barostat_interval": 3,
    },
    "mc": {"ensemble": "npt", "barostat": "mc", "barostat_interval": 2},
    "mc-anisotropic": {
        "ensemble": "npt",
        "thermostat": "nhc",
        "barostat": "mc",
        "coupling": "anisotropic",
        "barostat_interval": 3,
    },
    "ramps": {
        "ensemble": "npt",
        "temperature_end_K": 150.0,
        "pressure_end_bar": 500.0,
        "barostat_interval": 2,
    },
    "fixed": {"thermostat": "bussi", "fix": "0-3", "restraints": "5-8:2", "save": "forces,velocities,xtc,extxyz,traj"},
    "constrained": {"thermostat": "nhc", "constraints": "0-1,1-2:3.75,8-9,9-10,8-10"},
    "beads": {"beads": 3, "save": "forces"},
    "replicas": {"replicas": 3, "ensemble": "npt", "barostat": "mc", "barostat_interval": 2},
}
MEDIUM = LONG | {"steps": 30}
SHORT = LONG | {"steps": 6, "interval": 2, "restart_interval": 3}


@pytest.fixture(scope="module")
def runner():
    runner = Forks("tests.md.killable")
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def reference(runner, tmp_path_factory):
    """Bytes of the undisturbed run of given settings, and how long it took."""
    known = {}

    def get(**settings) -> tuple[tuple[bytes, ...], float]:
        key = json.dumps(settings)
        if key not in known:
            out = tmp_path_factory.mktemp("reference") / "run"
            start = time.perf_counter()
            assert runner.run(out=str(out), **settings) == 0
            known[key] = result_of(out), time.perf_counter() - start
        return known[key]

    return get


def result_of(out: Path) -> tuple[bytes, ...]:
    names = ("traj.dcd", "log.csv", "frames.xyz", "traj.xtc", "frames.traj", "centroid.dcd")
    files = (folder / name for folder in (out, *sorted(out.glob("replica_*"))) for name in names)
    return tuple(file.read_bytes() for file in files if file.exists())


def killed_until_done(runner, out: Path, settings: dict, duration: float, moments: random.Random, times: int) -> int:
    """Kill the run at random moments, resume it each time, let it end; returns how many kills struck."""
    struck = 0
    for _ in range(times):
        struck += (
            runner.run(after=moments.uniform(0, duration), out=str(out), resume=out.exists(), **settings)
            == -signal.SIGKILL
        )
        if struck == 0:
            return 0
    status = runner.run(out=str(out), resume=True, **settings)
    assert status in (0, 2)  # 2: there was nothing left to do
    return struck


def check_random_kills(runner, reference, tmp_path, ensemble: str, trials: int, seed: int, run: dict) -> None:
    settings = run | ENSEMBLES[ensemble]
    expected, duration = reference(**settings)
    moments, struck = random.Random(seed), 0
    for k in range(trials):
        struck += killed_until_done(runner, out := tmp_path / str(k), settings, duration, moments, times=2)
        if out.exists():
            assert result_of(out) == expected, f"trial {k}"
    assert struck >= trials // 2


def test_an_exception_that_no_child_expects_is_shown(runner, tmp_path):
    with pytest.raises(AssertionError, match=r"(?s)Traceback.*TypeError.*'bogus'"):
        runner.run(out=str(tmp_path / "run"), bogus=1)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_killed_at_random_moments(runner, reference, tmp_path, ensemble):
    check_random_kills(runner, reference, tmp_path, ensemble, trials=2, seed=1, run=MEDIUM)


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_killed_at_many_random_moments(runner, reference, tmp_path, ensemble):
    """Two kills each: 200 per ensemble."""
    check_random_kills(runner, reference, tmp_path, ensemble, trials=100, seed=2, run=LONG)


def check_death_at_operations(runner, reference, tmp_path, settings: dict, operations) -> None:
    expected, _ = reference(**settings)
    for count in operations:
        out = tmp_path / str(count)
        if runner.run(out=str(out), die_at=count, **settings) == 0:
            assert count > 50  # the run is over, each of its operations was struck
            return
        assert runner.run(out=str(out), resume=True, **settings) in (0, 2)
        assert result_of(out) == expected, f"killed at operation {count}"
    assert isinstance(operations, list)


def test_killed_at_some_file_operations(runner, reference, tmp_path):
    """Among them torn frames, torn log lines, torn restart files and half-done renames."""
    check_death_at_operations(runner, reference, tmp_path, SHORT, [*range(1, 60, 5), 2, 4, 17, 23])


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_killed_at_every_file_operation(runner, reference, tmp_path, ensemble):
    check_death_at_operations(runner, reference, tmp_path, SHORT | ENSEMBLES[ensemble], range(1, 1000))


def test_killed_while_resuming(runner, reference, tmp_path):
    expected, _ = reference(**SHORT)
    for count in range(1, 30, 4):
        out = str(tmp_path / str(count))
        runner.run(out=out, die_at=60, **SHORT)
        assert runner.run(out=out, resume=True, die_at=count, **SHORT) == -signal.SIGKILL
        assert runner.run(out=out, resume=True, **SHORT) in (0, 2)
        assert result_of(Path(out)) == expected


FORGOTTEN = {"generator": "langevin", "bath": "nhc", "barostat": "mc", "cell": "rescale", "heat": "bussi"}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_restart_that_forgets_something_is_seen(runner, reference, tmp_path, name):
    """The wrong variants: one variable starts over on resume."""
    settings = MEDIUM | ENSEMBLES[FORGOTTEN[name]]
    expected, _ = reference(**settings)
    out = str(tmp_path / "run")
    runner.run(out=out, die_at=90, **settings)
    assert runner.run(out=out, resume=True, forget=name, **settings) == 0
    assert result_of(Path(out)) != expected


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "flipped"])
def test_torn_restart_file_falls_back_to_the_one_before(runner, reference, tmp_path, damage):
    expected, _ = reference(**LONG)
    out = tmp_path / "run"
    runner.run(out=str(out), die_at=200, **LONG)
    file = out / "restart.npz"
    data = bytearray(file.read_bytes())
    assert previous(file).exists()
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data)), "flipped": data}[damage])
    assert runner.run(out=str(out), resume=True, **LONG) == 0
    assert result_of(out) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_and_save(runner, reference, tmp_path, number):
    expected, duration = reference(**LONG)
    out = tmp_path / "run"
    status = runner.run(after=0.6 * duration, number=number, out=str(out), **LONG)
    if status != 0:  # else it was faster
        assert status == 128 + number
        assert runner.run(out=str(out), resume=True, **LONG) == 0
    assert result_of(out) == expected


@pytest.mark.parametrize("limit", [2_500, 4_000, 9_000, 11_000])
def test_a_full_disk_is_one_message_and_loses_nothing(runner, reference, tmp_path, limit):
    """A file size limit stands for the full disk; restart.npz needs about 11 kB, the trajectory 19 kB."""
    settings = LONG | {"steps": 100, "interval": 2}
    expected, _ = reference(**settings)
    out = tmp_path / "run"
    assert runner.run(out=str(out), limit=limit, **settings) == 2
    assert runner.run(out=str(out), resume=True, **settings) == 0
    assert result_of(out) == expected
