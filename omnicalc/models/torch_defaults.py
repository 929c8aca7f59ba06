"""Torch's default device and dtype, which a caller may have set for other networks in the process."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def own_defaults() -> Iterator[None]:
    """Inside, they are the CPU, and float32 in place of a half one.

    Elsewhere tensors of one structure would lie on two devices; weights that are loaded into a network made in half
    precision would be rounded to it, in silence.
    """
    before = torch.get_default_dtype()
    half = before not in (torch.float32, torch.float64)
    elsewhere = torch.empty(0).device.type != "cpu"  # torch 2.5's get_default_device knows no contexts, and may fail
    with torch.device("cpu") if elsewhere else nullcontext():
        if half:
            torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            if half:
                torch.set_default_dtype(before)
