"""Triton kernels run in its interpreter where there is no GPU; it asks the environment when kernels are defined."""

import os
from importlib.util import find_spec

import pytest
import torch

INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def quicker_interpreter():
    """Calls inside a kernel scan the whole language each time. Once per module is enough, and twice as fast."""
    if not (INTERPRETED and find_spec("triton")):
        yield
        return
    from triton.runtime.interpreter import InterpretedFunction

    slow, seen = InterpretedFunction.__call__, set()

    def call(self, *args, **names):
        if self.fn.__module__ in seen:
            return self.rewrite()(*args, **names)
        seen.add(self.fn.__module__)
        return slow(self, *args, **names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpretedFunction, "__call__", call)
        yield


@pytest.fixture(autouse=True, scope="session")
def bfloat16_to_the_nearest():
    """The interpreter cuts float32 off to bfloat16; GPUs round it."""
    if not (INTERPRETED and find_spec("triton")):
        yield
        return
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cut = InterpreterBuilder.cast_impl

    def cast(self, src, dst_type):
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cut(self, src, dst_type)
        rounded = torch.from_numpy(src.data.copy()).bfloat16().view(torch.uint16).numpy()
        return TensorHandle(rounded, dst_type.scalar)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "cast_impl", cast)
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
