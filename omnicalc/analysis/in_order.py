"""Work that other threads do while the frames go on, with results taken in the order in which it was given.

So sums have the same bits as without threads. It pays where the work does not hold Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from omnicalc.analysis.native.library import threads

_AHEAD = 4  # pieces of work that wait or are being done, for each thread


class InOrder:
    """``give`` pieces of work; ``take`` is called here with each result, in order, at the latest by ``finish``."""

    def __init__(self, take: Callable[[object], None]):
        self._take = take
        self._others = threads() - 1
        self._pool: ThreadPoolExecutor | None = None
        self._given: deque[Future] = deque()

    def give(self, work: Callable[[], object]) -> None:
        """Do it in another thread, or here when those have enough to do. Errors of earlier work are raised here."""
        if self._others and self._waiting() < _AHEAD * self._others:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._others)
            self._given.append(self._pool.submit(work))
        else:
            self._given.append(_done(work))
        while self._given and self._given[0].done():
            self._take(self._given.popleft().result())

    def finish(self) -> None:
        """Wait for all of it."""
        while self._given:
            self._take(self._given.popleft().result())
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _waiting(self) -> int:
        return sum(not future.done() for future in self._given)


def _done(work: Callable[[], object]) -> Future:
    future = Future()
    future.set_result(work())
    return future
