"""Timing of several functions turn by turn, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def time_in_turns(functions: Mapping[str, Callable], rounds: int) -> dict[str, float]:
    """Median milliseconds of each function over ``rounds``, after one call that is not counted."""
    cuda = torch.cuda.is_available()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if cuda:
                torch.cuda.synchronize()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}
