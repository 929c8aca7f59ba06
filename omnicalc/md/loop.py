"""The loop from one state to the last step, and everything it writes on the way."""

from __future__ import annotations

import contextlib
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from omnicalc.errors import GuardError, OmniCalcError, RunError
from omnicalc.md import plots, restart
from omnicalc.md.ahead import Ahead
from omnicalc.md.box import standard_box
from omnicalc.md.files import AppendFile, is_behind
from omnicalc.md.folder import RunFolder
from omnicalc.md.frames import Frames
from omnicalc.md.progress import Silent, Speed
from omnicalc.md.restart import Restart
from omnicalc.md.state import State
from omnicalc.md.topology import write_topology
from omnicalc.md.trajectory import DcdWriter
from omnicalc.signals import StopWish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from omnicalc.md.dynamics import Dynamics
    from omnicalc.md.guards import Guards, Seen
    from omnicalc.md.settings import Settings

LOG_COLUMNS = ("step", "time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
_DRAWING = threading.Lock()  # matplotlib's caches serve one thread at a time
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
        self, dynamics: Dynamics, guards: Guards, folder: RunFolder, state: State, last: Restart | None = None
    ):
        self.dynamics, self.guards, self.folder, self.state = dynamics, guards, folder, state
        self.job, self.settings = dynamics.job, dynamics.settings
        self.moving_cell = self.settings.ensemble == "npt"
        self.box = standard_box(self.job.atoms.cell.array, self.job.atoms.pbc)
        self.last = last
        self.saved_step: int | None = last.state.step if last else None
        self.start_eV: float | None = None  # total energy at step 0, as the log has it
        self._measure(state)

    def go(self, progress: Silent, wish: StopWish | None = None, opened: Callable[[], None] = lambda: None) -> Result:
        """Run to the end, to a signal, or to a :class:`RunError`; the last good state is saved each time. ``opened`` is
        called once all files are found to be those of the run.
        """
        with ExitStack() as stack, wish or StopWish() as wish:
            self.open(stack)
            opened()
            self.speed = Speed(self.state.step, self.settings.steps, self.settings.timestep_fs)
            progress.start(self.state.step, self.settings.steps, self.settings.timestep_fs)
            stack.callback(progress.close)
            try:
                self._loop(progress, wish)
            except OmniCalcError as error:
                raise self._stopped(error) from error
            step, rate = self.state.step, self.speed.steps_per_s(self.state.step)
            self.save()
            draw_plots(self.folder, self.settings, len(self.job.atoms))
            return Result(step, step >= self.settings.steps, wish.signal, rate)

    def _loop(self, progress: Silent, wish: StopWish) -> None:
        settings = self.settings
        while self.state.step < settings.steps and wish.signal is None:
            for state, seen in self.next():
                self.check(state, seen)
                if state.step % settings.interval == 0:
                    self.record(state)
                # only now: a state whose frame or line could not be written is not the last good one
                self.state, self.log_bytes, self.sizes = state, self.log.size, self.frames.sizes
                self.tripped = self.guards.tripped
                if state.step % settings.restart_interval == 0:
                    self.save()
                progress.update(state.step, self.temperature_K, self.total_eV)

    def next(self) -> list[tuple[State, Seen | None]]:
        """The next state, or several up to the next that is written down, with what guards ask where that is known."""
        if self._ahead is None:
            return [(self.dynamics.step(self.state), None)]
        settings, step = self.settings, self.state.step
        every = (settings.interval, settings.restart_interval)
        return self._ahead.steps(self.state, min(settings.steps - step, *(n - step % n for n in every)))

    def check(self, state: State, seen: Seen | None) -> None:
        """Let the guards look at a new state. Raises :class:`GuardError` where to stop."""
        if not (self.settings.beads and self.guards.check_beads(state, self.state)):
            for view, before in zip(self.dynamics.views(state), self.dynamics.views(self.state), strict=True):
                self.guards.check_step(view, before, seen)
        first = self.dynamics.view(state)
        self.guards.check_uncertainty(first, self.dynamics.uncertainty)
        self.guards.check_bonds(first, lambda: self.dynamics.centroid(state), seen)

    def open(self, stack: ExitStack) -> None:
        """Open all files, with the first frame and the first restart file of a new run; ``stack`` closes them."""
        self._ahead = Ahead(self.dynamics, self.guards) if Ahead.possible(self.dynamics) else None
        folder, settings, atoms = self.folder, self.settings, self.job.atoms
        self.guards.save()
        if self.last is not None:
            self._check_log()
        self.trajectory = self._dcd(folder.trajectory, stack)
        self.centroids = self._dcd(folder.centroids, stack) if settings.beads else None
        if self.last is None or not folder.topology.exists():
            write_topology(folder.topology, atoms)
        sizes = self.last.sizes if self.last else {}
        self.frames = Frames(folder.path, atoms, settings, sizes, stack)
        self.log = stack.enter_context(AppendFile(folder.log, self.last.log_bytes if self.last else 0))
        self.timing = stack.enter_context(AppendFile(folder.timing, _whole_lines(folder)))
        if self.timing.size == 0:
            self.timing.append(TIMING_HEADER.encode())
        if self.last is None:
            self.log.append(self._header())
            self.record(self.state)
        self.log_bytes, self.sizes = self.log.size, self.frames.sizes
        self.tripped = self.guards.tripped
        if self.last is None:
            self.save(timing=False)

    def _dcd(self, path: Path, stack: ExitStack) -> DcdWriter:
        writer = DcdWriter(
            path,
            len(self.job.atoms),
            periodic=self.box is not None,
            timestep_fs=self.settings.timestep_fs,
            interval=self.settings.interval,
            frames=self.last.frames if self.last else 0,
        )
        stack.callback(writer.close)
        return writer

    def _check_log(self) -> None:
        """Take from the log what the guard of the drift needs. Raises :class:`RunError` when it is another one."""
        with self.folder.log.open("rb") as file:
            header, first = file.readline(), file.readline()
        wrong = None if header == self._header() else "its header differs"
        if self.settings.ensemble == "nve" and wrong is None:
            try:
                self.start_eV = float(first.split(b",")[LOG_COLUMNS.index("total_eV")])
            except (IndexError, ValueError):
                wrong = "its first line has no total_eV"
        if wrong:
            raise RunError(
                f"{self.folder.log} is not the log of this run ({wrong}); nothing was changed. Put it back as it was, "
                "or start another run with --out"
            )

    def _header(self) -> bytes:
        return (",".join(self._columns()) + "\n").encode()

    def _columns(self) -> tuple[str, ...]:
        more = ("conserved_eV",) * self.dynamics.has_conserved
        return LOG_COLUMNS + more + ("volume_A3", "pressure_bar") * self.moving_cell + self.dynamics.columns

    def record(self, state: State) -> None:
        """Add a frame and a line to the log, once the guards have nothing against it."""
        potential, kinetic = self._measure(state)
        total, kelvin = self.total_eV, self.temperature_K
        drift = None
        if self.settings.ensemble == "nve":
            self.start_eV = float(f"{total:.8f}") if self.start_eV is None else self.start_eV
            drift = total - self.start_eV
        views = self.dynamics.views(state)
        for view in views:
            self.guards.check_frame(view, kelvin, drift)
        self.guards.check_surroundings(views[0])
        if self.moving_cell:
            self.box = standard_box(state.cell.cpu().numpy(), self.job.atoms.pbc)
        self.trajectory.append(views[0].positions.cpu().numpy(), self.box)
        if self.centroids is not None:
            self.centroids.append(self.dynamics.centroid(state).cpu().numpy(), self.box)
        self.frames.append(views[0], self.box)
        time_fs = state.step * self.settings.timestep_fs
        line = f"{state.step},{time_fs:.12g},{potential:.8f},{kinetic:.8f},{total:.8f},{kelvin:.4f}"
        if self.dynamics.has_conserved:
            line += f",{self.dynamics.conserved(state, total):.8f}"
        if self.moving_cell:
            line += f",{state.volume:.6f},{self.dynamics.pressure_bar(state):.4f}"
        line += "".join(f",{value:.8f}" for value in self.dynamics.extra(state))
        self.log.append(f"{line}\n".encode())

    def _measure(self, state: State) -> tuple[float, float]:
        """Potential and kinetic energy, eV; total and temperature are kept for the log and the progress."""
        potential, kinetic, self.temperature_K = self.dynamics.measured(state)
        self.total_eV = potential + kinetic
        return potential, kinetic

    def save(self, timing: bool = True) -> None:
        """Write the restart file of the last good state, unless it is there, and a line to timing.csv."""
        if self.saved_step == self.state.step:
            return
        self.trajectory.sync()
        if self.centroids is not None:
            self.centroids.sync()
        self.frames.sync()
        self.log.sync()
        bound = self.job.bound
        neighbor_list = getattr(bound, "neighbor_list", None)
        reference = None if neighbor_list is None else neighbor_list.reference
        cell = None if reference is None else bound.systems.cell[0]  # a list is always searched in this one
        frames = self.state.step // self.settings.interval + 1
        found = Restart(self.state, frames, self.log_bytes, reference, cell, self.sizes, self.tripped)
        restart.save(self.folder.restart, found)
        self.saved_step = self.state.step
        if timing:
            step, now = self.state.step, datetime.now(UTC).isoformat(timespec="seconds")
            rate, ns_per_day = self.speed.steps_per_s(step), self.speed.ns_per_day(step)
            line = f"{now},{step},{self.speed.elapsed_s:.3f},{rate:.4f},{ns_per_day:.6f}\n"
            self.timing.append(line.encode())

    def _stopped(self, error: OmniCalcError) -> RunError:
        """The error to raise: what happened, and where the last good state lies."""
        with contextlib.suppress(RunError):  # a full disk: the restart file before is whole
            self.save()
            draw_plots(self.folder, self.settings, len(self.job.atoms))
        kind = GuardError if isinstance(error, GuardError) else RunError
        return kind(
            f"{error}. The run stopped; its state at step {self.saved_step} is kept in {self.folder.path} "
            "(restart.npz, traj.dcd)"
        )


def draw_plots(folder: RunFolder, settings: Settings, n_atoms: int) -> None:
    """Write the figures of a run from its log."""
    with _DRAWING:
        plots.draw(
            folder.log,
            folder.energy_plot,
            folder.temperature_plot,
            n_atoms=n_atoms,
            bath=(lambda step: settings.at(step)[0]) if settings.has_bath else None,
        )
        if settings.ensemble == "npt":
            plots.draw_cell(folder.log, folder.cell_plot, pressure=lambda step: settings.at(step)[1])


def lacks_plots(folder: RunFolder, settings: Settings) -> bool:
    """Whether a figure is missing, or is that of a shorter log, as after a kill while they were drawn."""
    cell = [folder.cell_plot] * (settings.ensemble == "npt")
    return any(is_behind(path, folder.log) for path in (folder.energy_plot, folder.temperature_plot, *cell))


def _whole_lines(folder: RunFolder) -> int:
    """Length of timing.csv up to its last whole line."""
    return folder.timing.read_bytes().rfind(b"\n") + 1 if folder.timing.exists() else 0
