"""Squared displacements, or products, over all time origins, in constant memory, by fast Fourier transforms.

    sum_t0 |x(t0 + k) - x(t0)|² = sum |x(t0)|² + sum |x(t0 + k)|² - 2 sum x(t0) · x(t0 + k)

The last term, or alone the product, is a correlation (Kneller, Keiner, Kneller, Schiller, Comput. Phys. Commun. 91,
191 (1995)). Only as many frames are held as the longest lag and a stretch of origins need; each stretch lies in one
block of frames.
"""

from __future__ import annotations

import numpy as np

_AT_ONCE = 150_000  # numbers in one transform: they stay in the processor's cache


class LagSums:
    """Sums (blocks, groups, lags) of squared displacements of P particles in groups; lags 0 .. max_lag."""

    def __init__(self, block_ends: np.ndarray, groups: np.ndarray, max_lag: int, products: bool = False):
        """``block_ends`` (B,): frame behind the last one of each block; ``groups`` (P,): group of each particle.

        ``products`` sums x(t0) · x(t0 + k) in place of squared displacements, from values held in single precision.
        """
        self.max_lag, self.groups, self.products = max_lag, groups, products
        self._ends = block_ends
        n_groups = int(groups.max()) + 1
        self.sums = np.zeros((len(block_ends), n_groups, max_lag + 1))
        self.origins = np.zeros((len(block_ends), max_lag + 1))  # time origins, for each particle
        self._held = np.empty((2 * max_lag + 1, len(groups), 3), dtype=np.float32 if products else np.float64)
        self._filled = 0
        self._first = 0  # frame at the start of what is held

    def add(self, values: np.ndarray) -> None:
        """Unwrapped positions, or what is to be multiplied, of the next frame (P, 3)."""
        self._held[self._filled] = values
        self._filled += 1
        if self._filled >= self._stretch() + self.max_lag:
            self._take()

    def finish(self) -> None:
        """Use the origins near the end, which only short lags have."""
        while self._filled:
            self._take()

    def _stretch(self) -> int:
        """Origins from the first held frame on that are done at once: to the end of its block, max_lag at most."""
        end = self._ends[np.searchsorted(self._ends, self._first, side="right")]
        return int(min(end - self._first, self.max_lag + 1))

    def _take(self) -> None:
        block = int(np.searchsorted(self._ends, self._first, side="right"))
        origins = min(self._stretch(), self._filled)
        x = self._held[: min(self._filled, origins + self.max_lag)]
        lags = np.arange(min(self.max_lag, len(x) - 1) + 1)
        ends = np.minimum(origins, len(x) - lags)  # origins that have this lag
        self.origins[block, lags] += ends
        size = _fft_size(len(x) + origins)
        batch = max(1, _AT_ONCE // (3 * size))
        for low in range(0, x.shape[1], batch):
            part = x[:, low : low + batch]
            part = part.astype(np.float64) if self.products else part - part[0]
            self._add_batch(block, part, origins, lags, ends, size, self.groups[low : low + batch])
        rest = self._filled - origins
        self._held[:rest] = self._held[origins : self._filled].copy()
        self._filled, self._first = rest, self._first + origins

    def _add_batch(self, block, x, origins, lags, ends, size, groups) -> None:
        from scipy.fft import irfft, rfft

        whole, early = rfft(x, size, axis=0), rfft(x[:origins], size, axis=0)
        together = irfft((whole * early.conj()).sum(axis=2), size, axis=0)[lags]  # (lags, p)
        values = together
        if not self.products:
            squares = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum((x**2).sum(axis=2), axis=0)])
            values = squares[ends] + squares[lags + ends] - squares[lags] - 2.0 * together
        for group in np.unique(groups):
            self.sums[block, group, lags] += values[:, groups == group].sum(axis=1)


def _fft_size(least: int) -> int:
    from scipy.fft import next_fast_len

    return next_fast_len(least, real=True)
