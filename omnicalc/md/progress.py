"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Speed:
    """Steps done since the start or resume and what follows for the rest; ``clock`` counts seconds."""

    def __init__(self, first: int, last: int, timestep_fs: float, clock=time.perf_counter):
        self.first, self.last, self.timestep_fs, self.clock = first, last, timestep_fs, clock
        self.start = clock()

    @property
    def elapsed_s(self) -> float:
        return max(self.clock() - self.start, 1e-9)

    def steps_per_s(self, step: int) -> float:
        return (step - self.first) / self.elapsed_s

    def ns_per_day(self, step: int) -> float:
        return self.steps_per_s(step) * self.timestep_fs * 86400 * 1e-6

    def remaining_s(self, step: int) -> float:
        return (self.last - step) / rate if (rate := self.steps_per_s(step)) > 0 else 0.0


class Silent:
    """Reports nothing; also the interface of the other two."""

    def start(self, first: int, last: int, timestep_fs: float) -> None:
        """A run is about to go from step ``first`` to ``last``."""

    def update(self, step: int, temperature_K: float, total_eV: float) -> None:
        """Called after every step with the last logged values; returns at once unless something is due."""

    def close(self) -> None:
        """The run has ended or stopped."""


class Lines(Silent):
    """Plain lines: every ten seconds; in long runs every percent of the expected time, up to ten minutes."""

    def __init__(self, stream: TextIO | None = None, clock=time.perf_counter):
        self._stream, self._clock = stream, clock

    def start(self, first: int, last: int, timestep_fs: float) -> None:
        self._speed = Speed(first, last, timestep_fs, self._clock)
        self._due = self._speed.start + 10.0

    def update(self, step: int, temperature_K: float, total_eV: float) -> None:
        now = self._clock()
        if now < self._due and step < self._speed.last:
            return
        total = self._speed.elapsed_s + self._speed.remaining_s(step)
        self._due = now + min(max(10.0, 0.01 * total), 600.0)
        print(
            f"step {step}/{self._speed.last}  {self._speed.ns_per_day(step):.3g} ns/day  "
            f"ETA {duration(self._speed.remaining_s(step))}  T {temperature_K:.1f} K  E {total_eV:.4f} eV",
            file=self._stream or sys.stdout,
            flush=True,
        )


class Bar(Silent):
    """A progress bar, drawn at most twice per second and by no thread of its own."""

    def __init__(self, clock=time.perf_counter):
        self._clock = clock

    def start(self, first: int, last: int, timestep_fs: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._speed = Speed(first, last, timestep_fs, self._clock)
        self._due = self._speed.start
        columns = [
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
        ]
        self._progress = Progress(*columns, auto_refresh=False, expand=True)
        self._progress.start()
        self._task = self._progress.add_task("md", total=last, completed=first, note="")

    def update(self, step: int, temperature_K: float, total_eV: float) -> None:
        now = self._clock()
        if now < self._due and step < self._speed.last:
            return
        self._due = now + 0.5
        note = (
            f"{self._speed.ns_per_day(step):.3g} ns/day  ETA {duration(self._speed.remaining_s(step))}  "
            f"T {temperature_K:.0f} K  E {total_eV:.3f} eV"
        )
        self._progress.update(self._task, completed=step, note=note, refresh=True)

    def close(self) -> None:
        self._progress.stop()


def for_stream(stream: TextIO | None = None) -> Silent:
    """A bar when ``stream`` (default: standard output) is a terminal, lines otherwise."""
    stream = stream or sys.stdout
    return Bar() if stream.isatty() else Lines(stream)


def duration(seconds: float) -> str:
    """A time as 1d 02:03:04 or 02:03:04."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock
