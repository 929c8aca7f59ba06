"""Progress over tasks that take seconds or minutes each, on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_PLAIN_EVERY = 10.0  # s between lines where there is no terminal


@contextmanager
def task_progress(unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """``progress(done, total, note)``: a bar on a terminal, a line now and then elsewhere, the last one always."""
    if not sys.stderr.isatty():
        yield _Plain(unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    note = TextColumn("{task.fields[note]}")
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(unit, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


class _Plain:
    def __init__(self, unit: str):
        self._unit, self._start, self._last, self._first = unit, time.monotonic(), -1e9, None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if now - self._last < _PLAIN_EVERY and done < total:
            return
        self._last = now
        fresh = done - self._first
        left = f", {(now - self._start) / fresh * (total - done) / 60:.1f} min left" if fresh and done < total else ""
        click.echo(f"{done} of {total} {self._unit}{left}{', ' + note if note else ''}", err=True)
