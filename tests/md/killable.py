"""Runs in forked children that the tests may kill.

A request holds ``out`` and Settings; ``resume``; ``die_at``: die of SIGKILL at the n-th operation on files, the half of
a write done; ``limit``: file size limit in bytes; ``forget``: the wrong variants, whose restart has lost one variable
of the state; ``replicas``: so many copies.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from omnicalc.errors import OmniCalcError
from omnicalc.md import loop
from omnicalc.md.folder import RunFolder
from omnicalc.md.replicas import run_replicas
from omnicalc.md.restart import Restart
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from tests.forking import serve

from . import toy

OPERATIONS = [(os, name) for name in ("write", "fsync", "replace", "link", "ftruncate", "open")] + [
    (Path, "write_bytes")
]


def die_at(count: int) -> None:
    """Let this process be killed at the ``count``-th operation from here on."""
    left = [count]

    def deadly(name, operation):
        def wrapped(target, *arguments, **keywords):
            left[0] -= 1
            if left[0] == 0:
                if name in ("write", "write_bytes"):
                    operation(target, arguments[0][: len(arguments[0]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(target, *arguments, **keywords)

        return wrapped

    for owner, name in OPERATIONS:
        setattr(owner, name, deadly(name, getattr(owner, name)))


def forget(name: str) -> None:
    """Let restart files read from here on have lost one variable of the state."""
    read = Restart.read.__func__

    def forgetful(cls, *arguments):
        restart = read(cls, *arguments)
        state = restart.state
        if name == "generator":
            state.generator.manual_seed(1)
        elif name == "barostat":
            state = replace(state, barostat=state.barostat + 1.0)
        elif name == "cell":
            state = replace(state, cell=1.001 * state.cell)
        else:
            state = replace(state, **{name: torch.zeros_like(getattr(state, name))})
        return replace(restart, state=state)

    Restart.read = classmethod(forgetful)


def child(request: dict) -> int:
    loop.plots.draw = loop.plots.draw_cell = lambda *arguments, **keywords: None  # takes longer than the run
    folder, resume = RunFolder(request.pop("out")), request.pop("resume", False)
    if limit := request.pop("limit", None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if name := request.pop("forget", None):
        forget(name)
    if count := request.pop("die_at", None):
        die_at(count)
    try:
        if count := request.pop("replicas", None):
            result = run_replicas(toy.pairs_job(), Settings(**request), folder, count, resume=resume)[0]
        else:
            result = run(toy.pairs_job(), Settings(**request), folder, resume=resume)
    except OmniCalcError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0 if result.finished else 128 + result.signal


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:  # once here, so that no child has to import anything
        child({"out": f"{folder}/run", "steps": 1})
    serve(child)


if __name__ == "__main__":
    main()
