"""Progress of a training: lines of report on stdout, and a bar on stderr where that is a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_PLAIN_EVERY = 20.0  # s between lines of progress where there is no terminal


@contextmanager
def train_progress() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
    """(report, progress): the first prints a line, the second takes (what, done, total)."""
    if not sys.stderr.isatty():
        yield click.echo, _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        def report(line: str) -> None:
            bar.console.print(line, highlight=False, markup=False)

        yield report, progress


class _PlainProgress:
    def __init__(self):
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _PLAIN_EVERY:
            self._last = time.monotonic()
            click.echo(f"{done} of {total} {what}", err=True)
