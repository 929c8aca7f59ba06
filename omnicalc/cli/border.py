"""The border of the command line: whatever happens inside a verb, one message and an exit code come out.

0 done; 2 the user can act (bad input, bad weights, a run that had to stop, no memory, no disk); 3 results are written,
but some are not what was asked for (structures that did not converge or failed); 130 stopped by Ctrl-C; 1 anything
else, with its traceback, which is a defect of ours.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable

import click

from omnicalc.cli.interrupts import interrupts_noted
from omnicalc.errors import OmniCalcError, OmniCalcWarning

REFUSED, UNFINISHED, INTERRUPTED = 2, 3, 130


def at_border(run: Callable[[], object]) -> int:
    """The exit code of ``run``, a click command called with ``standalone_mode=False``; prints what went wrong."""
    try:
        with interrupts_noted(), warnings.catch_warnings():
            warnings.showwarning = _shown_by(warnings.showwarning)
            code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _said("stopped", INTERRUPTED)
    except (OmniCalcError, MemoryError, OSError, RuntimeError) as error:
        if _reader_is_gone(error):  # as in `omnicalc models | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        message = message_of(error)
        if message is None:
            raise
        return _said(f"error: {message}", REFUSED)


def message_of(error: Exception) -> str | None:
    """One line for the user; None for a defect that deserves its traceback."""
    if isinstance(error, OmniCalcError):
        return str(error)
    if _out_of_memory(error):
        return (
            f"out of memory{_bytes_wanted(error)}; use a smaller structure, --dtype float32, a machine or --device "
            "with more memory, or end other programs. A run of `omnicalc md` or `omnicalc train` goes on with --resume"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'input or output'}: {error.strerror}"
    return None


def _shown_by(usual: Callable) -> Callable:
    """What shows warnings: ours as one line, others as ``usual``."""

    def show(message, category, *where, **more) -> None:
        if issubclass(category, OmniCalcWarning):
            click.echo(f"warning: {message}", err=True)
        else:
            usual(message, category, *where, **more)

    return show


def _said(text: str, code: int) -> int:
    click.echo(text, err=True)
    return code


def _reader_is_gone(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _out_of_memory(error: Exception) -> bool:
    """Python's, torch's on a GPU (a RuntimeError by its own class name), or torch's allocator on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and re.search(r"out of memory|can't allocate memory", str(error)) is not None


def _bytes_wanted(error: Exception) -> str:
    found = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGT]iB)", str(error))
    if found is None:
        return ""
    wanted = found[2] or f"{int(found[1]) / 2**30:.3g} GiB"
    return f" ({wanted} more were wanted)"
