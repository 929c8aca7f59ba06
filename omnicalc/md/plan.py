"""What a run will need, measured on its first steps, before anything is written."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from omnicalc.md.engines import dynamics_of
from omnicalc.md.files import free_MB
from omnicalc.md.folder import RunFolder
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.loop import Loop
from omnicalc.pair_search import search_pairs

if TYPE_CHECKING:
    from omnicalc.md.job import Job
    from omnicalc.md.settings import Settings

_LEAST_STEPS, _MOST_STEPS = 5, 1000
_PATIENCE = 30.0  # s, after which fewer steps than the least will do
_FRAMES_TIMED, _FRAMES_TIME = 10, 1.0  # and no more after so many s
_RECORD = 2000  # bytes of run.json, about, as those that follow
_TIMING_LINE = 60  # of timing.csv, for each restart file
_PLOTS, _CELL_PLOT = 230_000, 100_000  # of energy.png and temperature.png, and of cell.png


@dataclass(frozen=True)
class Plan:
    """What :func:`plan` found; for the whole run, all replicas together."""

    atoms: int
    edges: int | None  # directed neighbours within the cutoff; None where the potential has no list
    cutoff: float | None  # Å
    memory_MB: float  # noqa: N815 - most that the process has needed so far, or on a GPU of its memory
    steps_timed: int
    ms_per_step: float  # with its share of frames, log lines and restart files
    run_s: float  # of the steps that are left
    disk_MB: float  # noqa: N815
    free_MB: float  # noqa: N815
    frames: int


def plan(
    job: Job, settings: Settings, folder: Path, *, replicas: int = 1, first: int = 0, seconds: float = 3.0
) -> Plan:
    """Take a copy of the run through its first steps, for about ``seconds``, and say what all of it will need.

    ``first``: the step that a resumed run goes on from; ``replicas``: copies, timed one at a time, so that a batch is
    at least as fast. Writes nothing but into a temporary folder. Errors are those of a start.
    """
    dynamics, guards = dynamics_of(job, settings), Guards(settings, job.atoms, folder, lambda text: None)
    _only_warn(guards, "save")  # where the folder is there already
    state = initial_state(job.atoms, dynamics, settings, guards, job.device)
    _only_warn(guards, "save", "stop")
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        loop = Loop(dynamics, guards, RunFolder(place), state)
        loop.open(stack)
        done, per_step = _timed(loop, job.device, seconds)
        per_restart, _ = _cost(lambda: loop.save(timing=False), place, 1)
        fixed = _bytes(place)
        per_frame, frame_bytes = _cost(lambda: loop.record(loop.state), place, _FRAMES_TIMED)
    per_step += per_frame / settings.interval + per_restart / settings.restart_interval
    left = max(settings.steps - first, 0)
    frames = settings.steps // settings.interval + 1
    fixed += _RECORD + _PLOTS + _CELL_PLOT * (settings.ensemble == "npt")
    lines = _TIMING_LINE * (settings.steps // settings.restart_interval)
    edges, cutoff = _edges(job)
    return Plan(
        atoms=len(job.atoms),
        edges=edges,
        cutoff=cutoff,
        memory_MB=_memory_MB(job.device),
        steps_timed=done,
        ms_per_step=1e3 * per_step,
        run_s=left * replicas * per_step,
        disk_MB=replicas * (fixed + (frames - 1) * frame_bytes + lines) / 1e6,
        free_MB=free_MB(folder),
        frames=frames,
    )


def _only_warn(guards: Guards, *actions: str) -> None:
    """Turn ``actions`` of guards into warnings, which nobody hears here."""
    guards.rules = {
        name: rule._replace(action="warn") if rule.action in actions else rule for name, rule in guards.rules.items()
    }


def _timed(loop: Loop, device: str, seconds: float) -> tuple[int, float]:
    """How many steps were timed, without what is written on the way, and seconds per step.

    The first steps make what later ones find, so they count only where they take so long that it makes no difference.
    """

    def synchronised() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = synchronised()
    done = _advance(loop)
    first = synchronised() - start
    if first > _PATIENCE:
        return done, first / done
    start, done = synchronised(), 0
    while done < _MOST_STEPS and time.perf_counter() - start < (seconds if done >= _LEAST_STEPS else _PATIENCE):
        done += _advance(loop)
    return done, (synchronised() - start) / done


def _advance(loop: Loop) -> int:
    """Go on by as many steps as are made at a time; how many those are."""
    made = loop.next()
    for state, seen in made:
        loop.check(state, seen)
        loop.state = state
    return len(made)


def _cost(write: Callable[[], None], folder: str, most: int) -> tuple[float, float]:
    """Seconds and bytes in ``folder`` that one call of ``write`` takes, the mean over at ``most`` so many."""
    before, start, times = _bytes(folder), time.perf_counter(), 0
    while times < most and time.perf_counter() - start < _FRAMES_TIME:
        write()
        times += 1
    return (time.perf_counter() - start) / times, (_bytes(folder) - before) / times


def _bytes(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def _edges(job: Job) -> tuple[int | None, float | None]:
    neighbor_list = getattr(job.bound, "neighbor_list", None)
    if neighbor_list is None:
        return None, None
    atoms, cutoff = job.atoms, neighbor_list.cutoff
    return len(search_pairs(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)[0]), cutoff


def _memory_MB(device: str) -> float:  # noqa: N802
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def as_text(found: Plan, settings: Settings, replicas: int, device: str) -> str:
    """The plan for people."""
    from omnicalc.md.progress import duration

    ns_per_day = 86.4 * settings.timestep_fs / found.ms_per_step
    copies = f", {replicas} replicas one by one (a batch is faster)" if replicas > 1 else ""
    pairs = "" if found.edges is None else f", {found.edges} neighbours within {found.cutoff:g} Å "
    pairs += "" if found.edges is None else f"({found.edges / found.atoms:.1f} per atom)"
    kept = "on the GPU" if device != "cpu" else "of the process"
    kept += ", of one replica" if replicas > 1 else ""
    enough = "" if found.free_MB > found.disk_MB + 100 else "; NOT ENOUGH: fewer frames (--interval), or another --out"
    return "\n".join(
        [
            f"plan       {found.atoms} atoms{pairs}",
            f"memory     {found.memory_MB:.0f} MB {kept}, at its most so far",
            f"speed      {found.ms_per_step:.3g} ms per step, {1e3 / found.ms_per_step:.1f} steps/s, {ns_per_day:.3g} "
            f"ns/day (over {found.steps_timed} steps)",
            f"time       {duration(found.run_s)} for what is left of {settings.steps} steps{copies}",
            f"disk       {found.disk_MB:.1f} MB for {found.frames} frames{' each' * (replicas > 1)}, restart files and "
            f"plots; {found.free_MB:.0f} MB are free{enough}",
            "nothing was started; leave --plan out to run",
        ]
    )
