"""Whether a correlated series follows a distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import kstwobign


def correlation_time(values: np.ndarray, window: float = 6.0) -> float:
    """Integrated autocorrelation time in samples, 0.5 for independent ones (Sokal's window)."""
    rest = values - values.mean()
    power = np.abs(np.fft.rfft(rest, 2 * len(rest))) ** 2
    correlation = np.fft.irfft(power)[: len(rest)] / np.arange(len(rest), 0, -1)
    sums = 0.5 + np.cumsum(correlation[1 : len(rest) // 4] / correlation[0])
    enough = np.flatnonzero(np.arange(1, len(sums) + 1) >= window * sums)
    return max(0.5, float(sums[enough[0]] if enough.size else sums.max()))


def mean_and_error(values) -> tuple[float, float]:
    values = np.asarray(values, dtype=float)
    independent = len(values) / (2 * correlation_time(values))
    return float(values.mean()), float(values.std() / np.sqrt(independent))


def ks_probability(values, cdf: Callable) -> float:
    """Kolmogorov-Smirnov: how likely a deviation from ``cdf`` as large as that of the series is by chance, with the
    number of independent samples taken from the correlation time.
    """
    values = np.asarray(values, dtype=float)
    independent = len(values) / (2 * correlation_time(values))
    ordered = cdf(np.sort(values))
    n = len(values)
    distance = max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max())
    return float(kstwobign.sf(distance * np.sqrt(independent)))
