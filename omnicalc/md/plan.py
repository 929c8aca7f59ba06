"""What a run will need, measured on its first steps, before anything is written."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from omnicalc.md.box import standard_box
from omnicalc.md.engines import dynamics_of
from omnicalc.md.files import free_MB
from omnicalc.md.frames import Frames
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.restart import Restart
from omnicalc.md.saving import FILES
from omnicalc.md.trajectory import frame_layout
from omnicalc.pair_search import search_pairs

if TYPE_CHECKING:
    from omnicalc.md.job import Job
    from omnicalc.md.settings import Settings

_LEAST_STEPS, _MOST_STEPS = 5, 1000
_PATIENCE = 30.0  # s, after which fewer steps than the least will do
_LOG_LINE = 90  # bytes, about


@dataclass(frozen=True)
class Plan:
    """What :func:`plan` found; for the whole run, all replicas together."""

    atoms: int
    edges: int | None  # directed neighbours within the cutoff; None where the potential has no list
    cutoff: float | None  # Å
    memory_MB: float  # noqa: N815 - most that the process has needed so far, or on a GPU of its memory
    steps_timed: int
    ms_per_step: float
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
    state = initial_state(job.atoms, dynamics, settings, guards, job.device)
    restart_bytes = len(Restart(state, 1, 0, state.positions).to_bytes())
    state, done, per_step = _timed(dynamics, state, job.device, seconds)
    left = max(settings.steps - first, 0)
    frames = settings.steps // settings.interval + 1
    dcd_files = 2 if settings.beads else 1
    per_frame = dcd_files * frame_layout(len(job.atoms), bool(job.atoms.pbc.any())).itemsize + _LOG_LINE
    per_frame += _more(job, settings, dynamics.view(state))
    edges, cutoff = _edges(job)
    return Plan(
        atoms=len(job.atoms),
        edges=edges,
        cutoff=cutoff,
        memory_MB=_memory_MB(job.device),
        steps_timed=done,
        ms_per_step=1e3 * per_step,
        run_s=left * replicas * per_step,
        disk_MB=replicas * (frames * per_frame + 2 * restart_bytes) / 1e6,
        free_MB=free_MB(folder),
        frames=frames,
    )


def _timed(dynamics, state, device: str, seconds: float) -> tuple[object, int, float]:
    """The state after some steps, how many were timed, and seconds per step.

    The first step makes what later ones find, so it counts only where steps take so long that it makes no difference.
    """

    def synchronised() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = synchronised()
    state = dynamics.step(state)
    first = synchronised() - start
    if first > _PATIENCE:
        return state, 1, first
    start, done = synchronised(), 0
    while done < _MOST_STEPS and time.perf_counter() - start < (seconds if done >= _LEAST_STEPS else _PATIENCE):
        state, done = dynamics.step(state), done + 1
    return state, done, (synchronised() - start) / done


def _more(job: Job, settings: Settings, state) -> int:
    """Bytes per frame of the files that --save asks for, from one of each."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        frames = Frames(Path(folder), job.atoms, settings, {}, stack)
        box = standard_box(job.atoms.cell.array, job.atoms.pbc)
        frames.append(state, box)
        first = _bytes(frames.sizes)
        frames.append(state, box)
        return _bytes(frames.sizes) - first


def _bytes(sizes: Mapping[str, int]) -> int:
    return sum(size for name, size in sizes.items() if name in FILES)


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
            f"disk       {found.disk_MB:.1f} MB for {found.frames} frames{' each' * (replicas > 1)} and restart files; "
            f"{found.free_MB:.0f} MB are free{enough}",
            "nothing was started; leave --plan out to run",
        ]
    )
