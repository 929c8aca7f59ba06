"""How often each of many pairs was seen, with sums of two numbers, in memory that grows with pairs, not frames."""

from __future__ import annotations

import numpy as np

_BUFFER = 2000  # entries that wait, or as many as there are pairs


class PairTally:
    """Counts frames per pair and block, and averages a distance and an angle over what was seen."""

    def __init__(self, n_blocks: int):
        self.n_blocks = n_blocks
        self._keys = np.empty(0, dtype=np.int64)
        self._frames = np.empty((n_blocks, 0), dtype=np.int32)
        self._sums = np.empty((3, 0))  # entries, distances, angles: several hydrogens may hold one pair
        self._waiting: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        self._size = 0

    def add(self, block: int, keys: np.ndarray, distance: np.ndarray, angle: np.ndarray) -> None:
        """Pairs seen in one frame (n,), which may repeat: a frame counts once for each."""
        if len(keys):
            self._waiting.append((block, keys, distance, angle))
            self._size += len(keys)
        if self._size > max(_BUFFER, len(self._keys)):
            self._merge()

    def totals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Keys (P,), frames (B, P), and mean distance and angle (P,)."""
        self._merge()
        entries, distance, angle = self._sums
        return self._keys, self._frames, distance / entries, angle / entries

    def _merge(self) -> None:
        if not self._waiting:
            return
        every = np.unique(np.concatenate([self._keys, *(keys for _, keys, _, _ in self._waiting)]))
        frames = np.zeros((self.n_blocks, len(every)), dtype=np.int32)
        sums = np.zeros((3, len(every)))
        at = np.searchsorted(every, self._keys)
        frames[:, at], sums[:, at] = self._frames, self._sums
        for block, keys, distance, angle in self._waiting:
            frames[block, np.searchsorted(every, np.unique(keys))] += 1
            at = np.searchsorted(every, keys)
            for row, values in enumerate((np.ones(len(keys)), distance, angle)):
                np.add.at(sums[row], at, values)
        self._keys, self._frames, self._sums = every, frames, sums
        self._waiting, self._size = [], 0
