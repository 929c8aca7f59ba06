"""Threads of the CPU for as long as a command works."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Work with so many threads, torch's own choice where ``number`` is None; the setting is then as it was."""
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
