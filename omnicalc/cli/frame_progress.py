"""Progress over the frames of a trajectory, on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from omnicalc.cli.interrupts import raise_dropped

_PLAIN_EVERY = 10.0  # s between lines of progress where there is no terminal


@contextmanager
def frame_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line every ten seconds elsewhere; nothing for what is done at once."""
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("frames", total=None)

        def update(done: int, total: int) -> None:
            raise_dropped()
            bar.update(task, completed=done, total=total)

        yield update


class _PlainProgress:
    def __init__(self):
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        raise_dropped()
        if time.monotonic() - self._last >= _PLAIN_EVERY:
            self._last = time.monotonic()
            click.echo(f"{done} of {total} frames", err=True)
