"""Steps made ahead are those of single steps, to the last bit, and ask the device for nothing in between."""

import os
import signal
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from omnicalc.errors import RunError
from omnicalc.md import ahead
from omnicalc.md.ahead import Ahead
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.folder import RunFolder
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.restart import Restart
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.neighbor_list import NeighborList
from omnicalc.systems import Systems

from .toy import Failing, Pairs, argon, job

HOT = Settings(
    steps=150, timestep_fs=8.0, temperature_K=300.0, ensemble="nvt", interval=20, restart_interval=50, seed=11
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:MDAnalysis")


class Late(Pairs):
    """Pairs that say of themselves that their results come later, as kernels of a GPU do."""

    asynchronous = True


class LateRows(Late):
    """The same energy from dense rows, in operations that a GPU does without telling its host anything."""

    def __call__(self, positions):
        systems = self.systems.with_positions(positions)
        rows = self.neighbor_list.rows_with_skin(systems)
        there = rows.source >= 0
        source = torch.where(there, rows.source, 0).long()
        at = positions.detach().requires_grad_()
        r2 = (at[:, None] - at[source] - rows.offset).square().sum(-1)
        near = there & (r2 < self.cutoff**2)
        r2 = torch.where(near, r2, 1.0)
        six = (self.sigma**2 / r2) ** 3
        pair = 4 * self.epsilon * (six * six - six) * (1 - r2 / self.cutoff**2).clamp(min=0) ** 3
        energy = 0.5 * torch.where(near, pair, 0.0).sum()
        return SimpleNamespace(energy=energy.detach().reshape(1), forces=-torch.autograd.grad(energy, at)[0])


def late_job(kind=Late, **more):
    atoms = argon()
    return job(atoms, kind(Systems.from_atoms(atoms), **more))


def all_of(folder: RunFolder) -> tuple[bytes, bytes, dict]:
    return folder.trajectory.read_bytes(), folder.log.read_bytes(), Restart.read(folder.restart).state.to_arrays()


def same(one: RunFolder, other: RunFolder) -> bool:
    (frames, log, state), (frames_2, log_2, state_2) = all_of(one), all_of(other)
    return (frames, log) == (frames_2, log_2) and all(
        np.array_equal(v, state_2[k], equal_nan=v.dtype.kind == "f") for k, v in state.items()
    )


SETTINGS = {
    "langevin": HOT,
    "nve": replace(HOT, ensemble="nve"),
    "a ramp": replace(HOT, temperature_end_K=100.0),
    "lines at every step": replace(HOT, steps=40, interval=1),
    "no skin": replace(HOT, steps=40),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_made_ahead_is_that_of_single_steps(name, tmp_path):
    settings, more = SETTINGS[name], {"skin": 0.0} if name == "no skin" else {}
    plain, late = late_job(Pairs, **more), late_job(**more)
    run(plain, settings, RunFolder(tmp_path / "plain"))
    result = run(late, settings, RunFolder(tmp_path / "late"))
    assert result.finished and same(RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "late"))
    assert late.bound.neighbor_list.rebuilds == plain.bound.neighbor_list.rebuilds > (1 if name == "a ramp" else 2)


def test_a_list_that_no_longer_serves_would_be_seen(tmp_path, monkeypatch):
    """The wrong variant: steps count although atoms had left the list's reach."""
    run(late_job(Pairs), HOT, RunFolder(tmp_path / "plain"))
    monkeypatch.setattr(NeighborList, "reach", 5.0)
    run(late_job(), HOT, RunFolder(tmp_path / "late"))
    assert not same(RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "late"))


def test_several_steps_are_made_at_a_time(monkeypatch, tmp_path):
    made, trusting = [], Ahead._trusting

    def counted(self, state, n):
        found = trusting(self, state, n)
        made.append((n, len(found)))
        return found

    monkeypatch.setattr(Ahead, "_trusting", counted)
    run(late_job(), replace(HOT, timestep_fs=2.0), RunFolder(tmp_path / "run"))
    asked, kept = np.array(made).sum(0)
    assert kept > 0.6 * HOT.steps and asked < kept + 0.2 * HOT.steps
    assert max(n for n, _ in made) > 4 and len(made) < 0.4 * HOT.steps


@pytest.mark.parametrize("stopped", [7, 60, 149])
def test_a_resumed_run_is_the_whole_one(stopped, tmp_path):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    run(late_job(Pairs), HOT, whole)
    run(late_job(), replace(HOT, steps=stopped), parts)
    assert run(late_job(), HOT, parts, resume=True).finished and same(whole, parts)


def test_a_signal_is_heeded_soon_and_nothing_is_lost(tmp_path):
    calls = []

    class Signalling(Late):
        def __call__(self, positions):
            calls.append(1)
            if len(calls) == 30:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(positions)

    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    result = run(late_job(Signalling), HOT, parts)
    assert result.signal == signal.SIGTERM and 29 <= result.step <= 29 + ahead.MOST
    run(late_job(), HOT, parts, resume=True)
    run(late_job(Pairs), HOT, whole)
    assert same(whole, parts)


@pytest.mark.parametrize("value", [float("nan"), 4000.0])
def test_guards_stop_at_the_same_step_with_the_same_words(value, tmp_path):
    said, steps = [], []
    for kind in (Pairs, Late):
        given = late_job(kind)
        bound = Failing(given.bound, 47, value=value)
        bound.neighbor_list, bound.systems = given.bound.neighbor_list, given.bound.systems
        bound.asynchronous = kind is Late
        folder = RunFolder(tmp_path / kind.__name__)
        with pytest.raises(RunError) as stopped:
            run(job(given.atoms, bound), HOT, folder)
        said.append(str(stopped.value).replace(str(folder.path), ""))
        steps.append(Restart.read(folder.restart).state.step)
    assert said[0] == said[1] and "atom 3" in said[0]
    assert steps == [46, 46] and same(RunFolder(tmp_path / "Pairs"), RunFolder(tmp_path / "Late"))


def test_bonds_are_watched(tmp_path):
    """Molecules of two that are pulled apart, by a limit that a hot run passes soon."""
    from ase import Atoms

    atoms = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]], cell=[9.0] * 3, pbc=True)
    said, settings = [], replace(HOT, timestep_fs=1.0, guards="bond=stop:1.2")
    for late in (False, True):
        bound = Springs(Systems.from_atoms(atoms))
        bound.asynchronous = late
        with pytest.raises(RunError, match="bonded at the start") as stopped:
            run(job(atoms, bound), settings, RunFolder(tmp_path / str(late)))
        said.append(str(stopped.value).replace(str(tmp_path / str(late)), ""))
    assert said[0] == said[1]


class Springs:
    """A bond that is no more, so that two atoms fly apart."""

    def __init__(self, systems):
        self.systems, self.neighbor_list, self.cutoff = systems, NeighborList(3.0, 0.5), 3.0

    def __call__(self, positions):
        self.neighbor_list.rows_with_skin(self.systems.with_positions(positions))
        d = positions[1] - positions[0]
        push = 4.0 * d / d.norm()
        return SimpleNamespace(energy=-4.0 * d.norm().reshape(1), forces=torch.stack([-push, push]))


class Reads(TorchDispatchMode):
    """Counts the operations that make a GPU's host wait."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in self.WAITING
        return func(*args, **(kwargs or {}))


def begun(given, settings, folder) -> tuple[Ahead, Dynamics, object]:
    """Everything that a run has at its first step, one step on."""
    dynamics = Dynamics(given, settings)
    guards = Guards(settings, given.atoms, folder, print)
    made = Ahead(dynamics, guards)
    return made, dynamics, made.steps(initial_state(given.atoms, dynamics, settings, guards, given.device), 1)[-1][0]


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_nothing_is_read_between_steps(ensemble, tmp_path):
    made, dynamics, state = begun(late_job(LateRows), replace(HOT, timestep_fs=2.0, ensemble=ensemble), tmp_path)
    with Reads() as ahead_of_the_host:
        assert len(made._trusting(state, 12)) == 12
    with Reads() as single:  # the wrong variant
        dynamics.step(state)
    assert (ahead_of_the_host.count, single.count) == (0, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for_once_in_many_steps(tmp_path):
    """Of the bundled weights, by torch's own warnings about waiting."""
    from ase.io import read

    from omnicalc import load_potential
    from omnicalc.md.job import build_job

    potential = load_potential("ubio-s3", device="cuda")
    given = build_job(read("examples/water.xyz"), potential, file="water.xyz", read_options={})
    made, _, state = begun(given, replace(HOT, timestep_fs=0.5), tmp_path)
    state = made.steps(state, 1)[-1][0]  # the step is recorded by now
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            served = made._trusting(state, 8)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(served) == 8 and len([w for w in found if "synchroniz" in str(w.message)]) == 1
