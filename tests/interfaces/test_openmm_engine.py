"""``--engine openmm``: the same files, the same physics, an exact restart."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.io import read
from scipy.stats import chi2

pytest.importorskip("openmm")

from omnicalc.errors import InputError, RunError  # noqa: E402
from omnicalc.interfaces.openmm_dynamics import OpenMMDynamics  # noqa: E402
from omnicalc.md.dynamics import Dynamics  # noqa: E402
from omnicalc.md.folder import RunFolder  # noqa: E402
from omnicalc.md.guards import Guards  # noqa: E402
from omnicalc.md.initial import initial_state  # noqa: E402
from omnicalc.md.observables import kinetic_energy  # noqa: E402
from omnicalc.md.replicas import run_replicas  # noqa: E402
from omnicalc.md.restart import Restart, previous  # noqa: E402
from omnicalc.md.run import run  # noqa: E402
from omnicalc.md.settings import Settings  # noqa: E402
from omnicalc.systems import Systems  # noqa: E402
from tests.md.conftest import bytes_of, without_plots  # noqa: E402, F401
from tests.md.statistics import ks_probability  # noqa: E402
from tests.md.toy import Failing, Pairs, argon, job, pairs_job  # noqa: E402

SETTINGS = Settings(
    engine="openmm", steps=24, timestep_fs=4.0, temperature_K=90.0, interval=4, restart_interval=6, seed=11
)
WAYS = {
    "nve": {"ensemble": "nve"},
    "langevin": {},
    "fixed": {"fix": "0-3", "restraints": "5-8:2", "save": "forces"},
    "mc": {"ensemble": "npt", "barostat": "mc", "barostat_interval": 2, "pressure_bar": 500.0},
}


def started(kind, settings: Settings):
    toy = pairs_job()
    dynamics = kind(toy, settings)
    return dynamics, initial_state(toy.atoms, dynamics, settings, Guards(settings, toy.atoms, Path(), print))


def test_nve_equals_our_own_steps():
    settings = replace(SETTINGS, ensemble="nve")
    (theirs, a), (ours, b) = started(OpenMMDynamics, settings), started(Dynamics, settings)
    for _ in range(20):
        a, b = theirs.step(a), ours.step(b)
        assert (a.positions - b.positions).abs().max() < 1e-10
        assert (a.velocities - b.velocities).abs().max() < 1e-11
        assert (a.forces - b.forces).abs().max() < 1e-9
    assert theirs.conserved(a, 1.0) == 1.0 and theirs.has_conserved


@pytest.mark.parametrize("way", ["nve", "langevin"])
def test_a_checkpoint_holds_nothing_that_the_seed_does_not_decide(way):
    baths = []
    for _ in range(2):
        dynamics, state = started(OpenMMDynamics, replace(SETTINGS, **WAYS[way]))
        baths.append(dynamics.step(state).bath)
    assert torch.equal(*baths)


def test_one_force_call_per_step(monkeypatch):
    calls, call = [], Pairs.__call__
    monkeypatch.setattr(Pairs, "__call__", lambda self, x, **more: calls.append(1) or call(self, x, **more))
    dynamics, state = started(OpenMMDynamics, SETTINGS)
    for _ in range(10):
        state = dynamics.step(state)
    assert len(calls) <= 12


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_a_function_of_the_state(way):
    """The same state gives the same next state, whatever was done in between, here and in another context."""
    settings = replace(SETTINGS, **WAYS[way])
    dynamics, state = started(OpenMMDynamics, settings)
    for _ in range(3):
        state = dynamics.step(state)
    one = dynamics.step(state)
    dynamics.step(one)
    again = dynamics.step(state)
    other = OpenMMDynamics(pairs_job(), settings).step(state)
    for found in (again, other):
        assert np.array_equal(found.positions, one.positions) and np.array_equal(found.velocities, one.velocities)


@pytest.mark.parametrize("way", WAYS)
def test_resumed_it_goes_on_as_if_never_stopped(tmp_path, way):
    settings = replace(SETTINGS, **WAYS[way])
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(pairs_job(), settings, long)
    run(pairs_job(), replace(settings, steps=15), short)
    short.restart.unlink()
    assert Restart.read(previous(short.restart)).state.step == 12
    run(pairs_job(), settings, short, resume=True)
    assert bytes_of(short) == bytes_of(long)
    record = json.loads(long.record.read_text())
    assert record["settings"]["engine"] == "openmm" and "openmm" in record["versions"]


def test_a_lost_checkpoint_is_seen(tmp_path, monkeypatch):
    """The wrong variant: random numbers begin anew."""
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(pairs_job(), SETTINGS, long)
    run(pairs_job(), replace(SETTINGS, steps=12), short)
    read = Restart.read.__func__

    def forgetful(cls, *arguments):
        restart = read(cls, *arguments)
        return replace(restart, state=replace(restart.state, bath=restart.state.bath[:0]))

    monkeypatch.setattr(Restart, "read", classmethod(forgetful))
    run(pairs_job(), SETTINGS, short, resume=True)
    assert bytes_of(short) != bytes_of(long)


def test_langevin_has_the_temperature():
    dynamics, state = started(OpenMMDynamics, replace(SETTINGS, friction_per_fs=0.05))
    found = []
    for k in range(800):
        state = dynamics.step(state)
        if k > 100 and k % 5 == 0:
            found.append(2 * kinetic_energy(state) / (units.kB * 90.0))
    assert ks_probability(found, chi2(96).cdf) > 0.01
    assert ks_probability(np.array(found) * 1.2, chi2(96).cdf) < 1e-3  # the wrong variant: a unit of velocity is off


def test_fixed_atoms_stay(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, **WAYS["fixed"]), folder)
    state = Restart.read(folder.restart).state
    moved = (state.positions.numpy() - argon().positions) ** 2
    assert moved[:4].max() < 1e-20 < moved[4:].sum(1).min()
    for frame in read(folder.path / "frames.xyz", ":"):  # labels of the potential alone
        found = Pairs(Systems.from_atoms(frame))(torch.tensor(frame.positions))
        assert frame.get_potential_energy() == pytest.approx(float(found.energy), abs=1e-7)
        assert frame.get_forces(apply_constraint=False) == pytest.approx(found.forces.numpy(), abs=1e-6)


def test_guards_stop_it(tmp_path):
    atoms = argon()
    failing = job(atoms, Failing(Pairs(Systems.from_atoms(atoms)), 5))
    with pytest.raises(RunError, match=r"atom 3 \(Ar\) is not finite"):
        run(failing, SETTINGS, RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"thermostat": "bussi"}, "--thermostat langevin"),
        ({"ensemble": "npt"}, "--barostat mc"),
        ({"temperature_end_K": 100.0}, "ramps"),
        ({"constraints": "0-1"}, "--constrain"),
        ({"engine": "gromacs"}, "omnicalc, openmm"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(InputError, match=words):
        replace(SETTINGS, **given)


def test_replicas_are_refused(tmp_path):
    with pytest.raises(InputError, match="--engine"):
        run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "run"), 2)
