"""Triton kernels run in its interpreter where there is no GPU; it asks the environment when kernels are defined."""

import os
from importlib.util import find_spec

import pytest
import torch

from tests.kernels.interpreter import bfloat16_to_the_nearest, quicker

INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def interpreter():
    """The interpreter as tests need it."""
    if not (INTERPRETED and find_spec("triton")):
        yield
        return
    with quicker(), bfloat16_to_the_nearest():
        yield


@pytest.fixture
def instructions(monkeypatch):
    """Chooses an instruction set for the loops of training; the libraries in use are kept otherwise."""
    from omnicalc.kernels.native import attention, edges, library, nodes

    def forget() -> None:
        for module in (attention, edges, nodes):
            module.library.cache_clear()

    def choose(name: str) -> None:
        monkeypatch.setenv(library.INSTRUCTIONS, name)
        forget()

    yield choose
    forget()
