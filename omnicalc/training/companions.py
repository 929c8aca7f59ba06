"""Further processes beside this one that train with it on the same machine: one command, one terminal, one output."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omnicalc.errors import InputError, OmniCalcError, RunError

_PLACE = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK")  # as torchrun sets them


@contextmanager
def companions(count: int, work: Callable[..., int]) -> Iterator[None]:
    """While entered, this process is the first of ``count``; the others call ``work(report=..., progress=...)`` (which
    has to be picklable), and their output goes nowhere.

    They end with the block, whatever ends it. Raises RunError if one of them died, InputError under torchrun.
    """
    if count == 1:
        yield
        return
    most = max(2, os.cpu_count() or 1)
    if count > most:
        raise InputError(f"--processes {count}: no more than the cores of this machine are of use, {most}")
    if "WORLD_SIZE" in os.environ:
        raise InputError("--processes is for a training that torchrun has not started; leave it out")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()), WORLD_SIZE=str(count))
    context = multiprocessing.get_context("spawn")  # a fork would copy libraries with their threads gone
    others = []
    try:
        for rank in range(count)[::-1]:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))  # a child takes its environment along
            if rank:
                others.append(context.Process(target=_take_part, args=(work,), daemon=True))
                others[-1].start()
        yield
        for other in others:
            other.join()
    except RuntimeError as error:  # so torch says that another process has gone
        for other in others:
            other.join(timeout=2)
        codes = [other.exitcode for other in others if other.exitcode]
        if not codes:
            raise
        raise RunError(
            f"one of the {count} processes ended (exit code {codes[0]}), so training cannot go on; --resume goes on "
            "from the last saved state, if there is one"
        ) from error
    finally:
        for other in others:
            other.terminate()
        for name in _PLACE:
            del os.environ[name]


def _take_part(work: Callable[..., int]) -> None:
    try:
        sys.exit(work(report=_silent, progress=_silent))
    except OmniCalcError:  # the first process has met the same, and says so
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError:
        if multiprocessing.parent_process().is_alive():
            raise
        sys.exit(1)  # it was killed


def _silent(*_: object) -> None:
    pass


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
