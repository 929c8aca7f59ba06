"""Triton's interpreter, quicker, and with casts as a GPU makes them; for where there is no GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch


@contextmanager
def quicker() -> Iterator[None]:
    """Calls inside a kernel scan the whole language each time. Once per module is enough, and twice as fast."""
    from triton.runtime.interpreter import InterpretedFunction

    slow, seen = InterpretedFunction.__call__, set()

    def call(self, *args, **names):
        if self.fn.__module__ in seen:
            return self.rewrite()(*args, **names)
        seen.add(self.fn.__module__)
        return slow(self, *args, **names)

    with patch.object(InterpretedFunction, "__call__", call):
        yield


@contextmanager
def bfloat16_to_the_nearest() -> Iterator[None]:
    """The interpreter cuts float32 off to bfloat16; GPUs round it."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cut = InterpreterBuilder.cast_impl

    def cast(self, source, to):
        if (source.dtype.scalar, to.scalar) != (tl.float32, tl.bfloat16):
            return cut(self, source, to)
        rounded = torch.from_numpy(source.data.copy()).bfloat16().view(torch.uint16).numpy()
        return TensorHandle(rounded, to.scalar)

    with patch.object(InterpreterBuilder, "cast_impl", cast):
        yield
