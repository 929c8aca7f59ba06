"""Ctrl-C that is not lost.

Python drops an exception that comes up in a destructor or in the callback of a weak reference, and both run while
modules are imported: one Ctrl-C in eight, pressed early, ended nothing. So it is noted as well, and progress over the
work asks whether there was one.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_noted = False


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """While entered, SIGINT raises KeyboardInterrupt as it does in Python, and :func:`raise_dropped` knows of it.

    Nothing changes where SIGINT does something else, as when a shell has told a command to ignore it.
    """
    global _noted
    _noted = False
    usual = signal.default_int_handler
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual
    if ours:
        signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        _noted = False
        if ours:
            signal.signal(signal.SIGINT, usual)


def raise_dropped() -> None:
    """KeyboardInterrupt if there was one: whoever is still at work then has not been told."""
    if _noted:
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> NoReturn:
    global _noted
    _noted = True
    raise KeyboardInterrupt
