"""The learning rate and drop-path schedules of the SCD release."""

import math


def warmup_cosine(step: int, *, warmup: int, length: int, peak: float) -> float:
    """Rate at ``step`` (from 0): peak (g + 1) / w while warming up, then a cosine that counts from step 0,

        peak (1 + cos(pi g / T)) / (1 + cos(pi (w - 1) / T)),

    which begins at the peak and ends at zero at step T = ``length``. Beyond T it rises again, as released: then over 2.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    start = 1 + math.cos(math.pi * max(warmup - 1, 0) / length) if step <= length else 2
    return peak * (1 + math.cos(math.pi * step / length)) / start


def drop_path_at(step: int, *, first: float, last: float, warmup: int) -> float:
    """Drop-path probability: linear from ``first`` to ``last`` over the warm-up and 2000 steps more, then ``last``."""
    done = min(1.0, step / (warmup + 2000))
    return first + (last - first) * done
