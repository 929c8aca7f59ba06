"""SIGINT and SIGTERM as a wish to stop after the step under way, of a simulation or of a training."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType


class StopWish:
    """While entered, the first SIGINT or SIGTERM is noted in ``signal``; the next one acts as usual. Handlers
    are put back on leaving. ``said`` is then written to standard error, where the step under way may take long.
    """

    def __init__(self, said: str = "") -> None:
        self.said = said
        self.signal: int | None = None
        self._old: dict[int, object] = {}

    def __enter__(self) -> StopWish:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()
        if self.said:
            with suppress(OSError):
                os.write(2, f"\n{self.said}\n".encode())  # past Python's buffers, which a signal may find in use

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old = {}
