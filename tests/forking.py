"""Jobs in forked children of one process, which tests may kill: torch is loaded once, a child starts in milliseconds.

The process reads one JSON request per line and answers with the child's process id, then with its exit status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
UNEXPECTED = 3  # exit status after an exception that no child expects


class Forks:
    """The process of a module that calls :func:`serve`, seen from the tests."""

    def __init__(self, module: str):
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            text=True,
            env=os.environ | {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout.readline() == "ready\n", self.told()

    def run(self, after: float | None = None, number: int = signal.SIGKILL, **request) -> int:
        """Exit status of a child, negative when it died of a signal; ``number`` is sent ``after`` seconds.

        An exception that it did not expect is an ``AssertionError`` here, with the child's traceback.
        """
        self._told.seek(0)
        self._told.truncate()  # what was told before counts where a child's files are limited in size
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if after is not None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        status = int(self._process.stdout.readline())
        assert status != UNEXPECTED, f"{request}: {self.told()}"
        return status

    def told(self) -> str:
        """What the last child wrote to stderr."""
        self._told.seek(0)
        return self._told.read()

    def close(self) -> None:
        self._process.communicate()
        self._told.close()


def serve(child: Callable[[dict], int]) -> None:
    """Run ``child`` with each request of stdin, in a process of its own."""
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _exit_with(child, json.loads(line))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _exit_with(child: Callable[[dict], int], request: dict) -> None:
    status = UNEXPECTED
    try:
        status = child(request)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:  # whatever happened: stderr, too, can be full
        os._exit(status)
