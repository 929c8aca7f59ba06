"""Which frames an analysis uses, how far apart they are in time, and in how many blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from omnicalc.analysis.blocks import block_of, check_blocks, choose_blocks
from omnicalc.analysis.cells import NEEDS_CELL
from omnicalc.analysis.times import evenness
from omnicalc.analysis.trajectory import Frame, Trajectory
from omnicalc.analysis.unwrap import Unwrapper
from omnicalc.errors import InputError

Progress = Callable[[int, int], None]  # frames done, frames in all
_REMEMBERED_PS = 1.0  # hydrogen bonds of water at 300 K live for about as long; errors need blocks that forget


@dataclass(frozen=True)
class Sampling:
    """The frames of a trajectory that are used."""

    trajectory: Trajectory
    frames: range
    n_blocks: int  # 0: too few frames for error bars
    dt_ps: float | None  # between used frames; None where neither the file nor the user tells one that is true of all
    uneven: str | None = None  # what differs where the used frames are not evenly spaced in time

    def __len__(self) -> int:
        return len(self.frames)

    def block(self, position: int) -> int:
        """Block of the frame at this position of the range."""
        return block_of(position, len(self.frames), self.n_blocks)

    @property
    def how_to_tell_time(self) -> str:
        """What to add where the time between frames is missed; empty where there is none to give."""
        return "" if self.uneven else "; give it with --dt"

    @property
    def blocks(self) -> np.ndarray:
        """Block of every used frame (F,)."""
        return block_of(np.arange(len(self.frames)), len(self.frames), self.n_blocks)

    @property
    def times(self) -> np.ndarray:
        """Time of every used frame (F,), ps from the first frame of the file; its number where dt is not known."""
        frames = np.array(self.frames)
        if self.dt_ps is None:
            return frames
        if self.trajectory.times is not None and self.uneven is None:
            return self.trajectory.times[frames] - self.trajectory.times[0]
        return frames * (self.dt_ps / self.frames.step)

    @cached_property
    def unwrap(self) -> Unwrapper:
        """Displacements across the box, which all analyses of one pass share."""
        return Unwrapper()

    def need_time(self, what: str) -> float:
        """The time between used frames, ps; InputError naming ``what`` needs it."""
        if self.dt_ps is None and self.uneven:
            raise InputError(
                f"{self.trajectory.path} has frames that are not evenly spaced in time ({self.uneven}), and {what} "
                f"needs them so; choose some that are with --start, --stop and --step, or, where the times in the file "
                f"are wrong, give the time between its frames, in ps, with --dt"
            )
        if self.dt_ps is None:
            raise InputError(
                f"{self.trajectory.path} does not say how far apart its frames are in time, and {what} needs it; "
                f"give the time between frames of the file, in ps, with --dt"
            )
        return self.dt_ps

    def need_frames(self, least: int, what: str) -> None:
        """InputError unless there are ``least`` used frames."""
        if len(self) < least:
            raise InputError(
                f"{what} needs {least} frames or more, and {len(self)} of {self.trajectory.path} "
                f"{'is' if len(self) == 1 else 'are'} used; use more with --start, --stop and --step, or a longer run"
            )

    def need_cells(self, what: str) -> None:
        """InputError unless the first used frame has a full cell."""
        if not next(self.trajectory.frames(self.frames[:1])).bulk:
            raise InputError(
                f"{self.trajectory.path}: frame {self.frames[0]} has no cell that is periodic along all three axes, "
                f"and {what} needs one; {NEEDS_CELL}"
            )

    def notes(self) -> list[str]:
        notes = self.trajectory.notes()
        if self.uneven:
            taken = ", but --dt takes them as if they were" if self.dt_ps else ""
            notes.append(f"the frames are not evenly spaced in time{taken}: {self.uneven}")
        if not self.n_blocks:
            notes.append(f"too few frames for error bars ({len(self)}); ten or more give them (five blocks of two)")
        elif self.dt_ps and (block_ps := len(self) // self.n_blocks * self.dt_ps) < _REMEMBERED_PS:
            notes.append(
                f"blocks of {block_ps:.2g} ps are shorter than what a liquid remembers (a picosecond and more), so "
                f"errors may be too small; {self.n_blocks * _REMEMBERED_PS:g} ps and more give better ones"
            )
        return notes


def sample(
    trajectory: Trajectory,
    *,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    n_blocks: int = 10,
    dt_ps: float | None = None,
) -> Sampling:
    """Frames of the Python slice ``[start:stop:step]``; ``dt_ps`` between frames of the file replaces its own.

    Raises InputError.
    """
    check_blocks(n_blocks)
    if dt_ps is not None and not (np.isfinite(dt_ps) and dt_ps > 0):
        raise InputError(f"--dt {dt_ps} is no time; give ps between frames of the file, above zero")
    frames = trajectory.select(start, stop, step)
    spacing = trajectory.dt_ps if dt_ps is None else dt_ps
    spacing, uneven = None if spacing is None else spacing * frames.step, None
    if trajectory.times is not None:
        own, uneven = evenness(trajectory.times[np.array(frames)], frames)
        spacing = own if dt_ps is None else spacing
    return Sampling(trajectory, frames, choose_blocks(len(frames), n_blocks), spacing, uneven)


class Measure(Protocol):
    """An analysis that is fed frame by frame, keeps sums, and makes a result at the end."""

    verb: str
    tables: tuple[str, ...]  # names of the tables of its result

    def add(self, position: int, frame: Frame) -> None:
        """Take the frame at this position of the used frames; its arrays are valid during the call only."""

    def result(self):
        """Everything that was found."""


def stream(sampling: Sampling, measures: Iterable[Measure], progress: Progress | None = None) -> None:
    """One pass over the used frames that feeds all measures; memory does not grow with their number."""
    measures = list(measures)
    for position, frame in enumerate(sampling.trajectory.frames(sampling.frames)):
        for measure in measures:
            measure.add(position, frame)
        if progress is not None:
            progress(position + 1, len(sampling))
