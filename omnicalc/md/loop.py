"""The loop from one state to the last step, and everything it writes on the way."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch

from omnicalc.errors import OmniCalcError, RunError
from omnicalc.md import guards, observables, plots, restart
from omnicalc.md.box import standard_box
from omnicalc.md.files import AppendFile
from omnicalc.md.folder import RunFolder
from omnicalc.md.integrators import INTEGRATORS, Integration
from omnicalc.md.progress import Silent, Speed
from omnicalc.md.restart import Restart
from omnicalc.md.settings import Settings
from omnicalc.md.state import State
from omnicalc.md.topology import write_topology
from omnicalc.md.trajectory import DcdWriter
from omnicalc.signals import StopWish

if TYPE_CHECKING:
    from omnicalc.md.job import Job

LOG_HEADER = "step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K\n"
TIMING_HEADER = "utc,step,elapsed_s,steps_per_s,ns_per_day\n"


@dataclass(frozen=True)
class Result:
    """How a run ended or stopped."""

    step: int
    finished: bool
    signal: int | None  # that asked it to stop early
    steps_per_s: float


class Loop:
    """From ``state`` to ``settings.steps``; with ``last``, files go on from where that restart saw them."""

    def __init__(
        self, job: Job, settings: Settings, folder: RunFolder, state: State, last: Restart | None = None
    ):
        self.job, self.settings, self.folder, self.state = job, settings, folder, state
        self.numbers = torch.as_tensor(job.atoms.numbers)
        self.box = standard_box(job.atoms.cell.array, job.atoms.pbc)
        self.last = last
        self.saved_step: int | None = last.state.step if last else None
        self._measure(state)

    def go(self, progress: Silent) -> Result:
        """Run to the end, to a signal, or to a :class:`RunError`; the last good state is saved each time."""
        with ExitStack() as stack, StopWish() as wish:
            self._open(stack)
            self.speed = Speed(self.state.step, self.settings.steps, self.settings.timestep_fs)
            progress.start(self.state.step, self.settings.steps, self.settings.timestep_fs)
            stack.callback(progress.close)
            try:
                self._loop(progress, wish)
            except OmniCalcError as error:
                raise self._stopped(error) from error
            step, rate = self.state.step, self.speed.steps_per_s(self.state.step)
            self._save()
            self._draw()
            return Result(step, step >= self.settings.steps, wish.signal, rate)

    def _loop(self, progress: Silent, wish: StopWish) -> None:
        settings, forces_fn = self.settings, self.job.forces_fn
        step = INTEGRATORS[settings.ensemble]
        integration = Integration.from_fs(
            settings.timestep_fs, settings.temperature_K, settings.friction_per_fs
        )
        while self.state.step < settings.steps and wish.signal is None:
            state = step(self.state, forces_fn, integration)
            guards.check_forces(state, self.numbers)
            if state.step % settings.interval == 0:
                self._record(state)
            # only now: a state whose frame or line could not be written is not the last good one
            self.state, self.log_bytes = state, self.log.size
            if state.step % settings.restart_interval == 0:
                self._save()
            progress.update(state.step, self.temperature_K, self.total_eV)

    def _open(self, stack: ExitStack) -> None:
        folder, settings, atoms = self.folder, self.settings, self.job.atoms
        if self.last is None or not folder.topology.exists():
            write_topology(folder.topology, atoms)
        self.trajectory = DcdWriter(
            folder.trajectory,
            len(atoms),
            periodic=self.box is not None,
            timestep_fs=settings.timestep_fs,
            interval=settings.interval,
            frames=self.last.frames if self.last else 0,
        )
        stack.callback(self.trajectory.close)
        self.log = stack.enter_context(AppendFile(folder.log, self.last.log_bytes if self.last else 0))
        self.timing = stack.enter_context(AppendFile(folder.timing, _whole_lines(folder)))
        if self.timing.size == 0:
            self.timing.append(TIMING_HEADER.encode())
        if self.last is None:
            self.log.append(LOG_HEADER.encode())
            self._record(self.state)
        self.log_bytes = self.log.size
        if self.last is None:
            self._save(timing=False)

    def _record(self, state: State) -> None:
        """Add a frame and a line to the log, once the temperature is found sane."""
        potential, kinetic = self._measure(state)
        total, kelvin = self.total_eV, self.temperature_K
        guards.check_temperature(state, kelvin, self.settings.temperature_K, self.numbers)
        self.trajectory.append(state.positions.cpu().numpy(), self.box)
        time_fs = state.step * self.settings.timestep_fs
        self.log.append(
            f"{state.step},{time_fs:.12g},{potential:.8f},{kinetic:.8f},{total:.8f},{kelvin:.4f}\n".encode()
        )

    def _measure(self, state: State) -> tuple[float, float]:
        """Potential and kinetic energy, eV; total and temperature are kept for the log and the progress."""
        potential, kinetic = float(state.energy.sum()), observables.kinetic_energy(state)
        self.total_eV = potential + kinetic
        self.temperature_K = observables.temperature(kinetic, state.degrees_of_freedom)
        return potential, kinetic

    def _save(self, timing: bool = True) -> None:
        """Write the restart file of the last good state, unless it is there, and a line to timing.csv."""
        if self.saved_step == self.state.step:
            return
        self.trajectory.sync()
        self.log.sync()
        neighbor_list = getattr(self.job.bound, "neighbor_list", None)
        reference = None if neighbor_list is None else neighbor_list.reference
        frames = self.state.step // self.settings.interval + 1
        restart.save(self.folder.restart, Restart(self.state, frames, self.log_bytes, reference))
        self.saved_step = self.state.step
        if timing:
            step, now = self.state.step, datetime.now(UTC).isoformat(timespec="seconds")
            rate, ns_per_day = self.speed.steps_per_s(step), self.speed.ns_per_day(step)
            line = f"{now},{step},{self.speed.elapsed_s:.3f},{rate:.4f},{ns_per_day:.6f}\n"
            self.timing.append(line.encode())

    def _stopped(self, error: OmniCalcError) -> RunError:
        """The error to raise: what happened, and where the last good state lies."""
        with contextlib.suppress(RunError):  # a full disk: the restart file before is whole
            self._save()
            self._draw()
        return RunError(
            f"{error}. The run stopped; its state at step {self.saved_step} is kept in {self.folder.path} "
            "(restart.npz, traj.dcd)"
        )

    def _draw(self) -> None:
        target = self.settings.temperature_K if self.settings.ensemble == "nvt" else None
        folder = self.folder
        plots.draw(
            folder.log,
            folder.energy_plot,
            folder.temperature_plot,
            n_atoms=len(self.job.atoms),
            target_K=target,
        )


def _whole_lines(folder: RunFolder) -> int:
    """Length of timing.csv up to its last whole line."""
    return folder.timing.read_bytes().rfind(b"\n") + 1 if folder.timing.exists() else 0
