"""Sums that many analyses keep while frames stream by: means with block errors, and histograms."""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.blocks import ratio_of_sums


class BlockMean:
    """Mean of all values seen, each frame giving any number of them; error from blocks of frames."""

    def __init__(self, n_blocks: int):
        self.n_blocks = n_blocks
        self.count, self.total = np.zeros(max(n_blocks, 1)), np.zeros(max(n_blocks, 1))
        self._squares = 0.0

    def add(self, block: int, values: np.ndarray) -> None:
        self.count[block] += len(values)
        self.total[block] += values.sum()
        self._squares += float(values @ values)

    def mean(self) -> tuple[float, float | None]:
        """Mean and standard error; not a number where nothing was seen."""
        return ratio_of_sums(self.total, self.count, self.n_blocks)

    def spread(self) -> float:
        """Standard deviation of single values."""
        n = self.count.sum()
        return float(np.sqrt(max(self._squares / n - (self.total.sum() / n) ** 2, 0.0))) if n else float("nan")


class Histogram:
    """Counts on equal bins from ``low`` to ``high``; values outside are left out."""

    def __init__(self, low: float, high: float, width: float):
        self.low, self.width = low, width
        self.n_bins = int(round((high - low) / width))
        self.counts = np.zeros(self.n_bins, dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        bins = np.floor((np.asarray(values) - self.low) / self.width).astype(np.int64)
        bins = bins[(bins >= 0) & (bins < self.n_bins)]
        self.counts += np.bincount(bins, minlength=self.n_bins)

    @property
    def centres(self) -> np.ndarray:
        return self.low + self.width * (np.arange(self.n_bins) + 0.5)

    def density(self) -> np.ndarray:
        """Counts scaled so that the integral is one; zeros where nothing was seen."""
        total = self.counts.sum()
        return self.counts / (total * self.width) if total else np.zeros(self.n_bins)
