"""Progress of long work, on stderr: a bar on a terminal, a line now and then elsewhere, none for what is done soon."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import click

from omnicalc.cli.interrupts import raise_dropped

_PLAIN_EVERY = 20.0  # s between lines where there is no terminal


@contextmanager
def progress_of(unit: str) -> Iterator[Callable[..., None]]:
    """``progress(done, total, note="")`` over one kind of things, such as frames."""
    with progress_by_unit() as progress:
        yield partial(progress, unit)


@contextmanager
def progress_by_unit() -> Iterator[Callable[..., None]]:
    """``progress(unit, done, total, note="")`` over several kinds of things, one after the other.

    What is printed meanwhile stands above the bar, or goes where standard output has been sent.
    """
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    columns += (TextColumn("{task.fields[note]}"),)
    shared = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shared) as bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars):
        self._bars, self._tasks = bars, {}

    def __call__(self, unit: str, done: int, total: int, note: str = "") -> None:
        raise_dropped()
        if unit not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, visible=False)
            self._tasks[unit] = self._bars.add_task(unit, total=total, note=note)
        self._bars.update(self._tasks[unit], completed=done, total=total, note=note)


class _Lines:
    def __init__(self):
        self._said = time.monotonic()
        self._begun: dict[str, tuple[float, int]] = {}  # when a unit was first heard of, and how many were done then

    def __call__(self, unit: str, done: int, total: int, note: str = "") -> None:
        raise_dropped()
        now = time.monotonic()
        start, before = self._begun.setdefault(unit, (now, done))
        if now - self._said < _PLAIN_EVERY:
            return
        self._said = now
        left = (now - start) / (done - before) * (total - done) if done > before else 0.0
        text = f"{done} of {total} {unit}" + (f", {left / 60:.1f} min left" if left else "")
        click.echo(f"{text}, {note}" if note else text, err=True)
