"""Distances between two sets of atoms, counted into bins; minimum image in any triclinic box.

In upright boxes a native counter does it where it was built, with the same counts as MDAnalysis, which does it
elsewhere.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from omnicalc.analysis.cells import volume_and_heights
from omnicalc.analysis.native.library import counter, threads

_AT_ONCE = 500_000  # distances held in memory: few enough to stay in the processor's cache
_NEAR_FACTOR = 10  # more where a search prepares its grid for every chunk
_FEW = 200_000  # pairs: below, a second thread costs more than it saves
_NATIVE_SPEED = 0.1  # the native counter looks at a pair in this part of the time
_DENSE = 0.1  # of all pairs within reach: from there on a neighbour search is slower than all distances


def _backend() -> str:
    """The library's threaded distances, where it was built with them; threads as OMP_NUM_THREADS says."""
    from MDAnalysis.lib.distances import USED_OPENMP

    return "OpenMP" if USED_OPENMP else "serial"


class PairCounter:
    """Counts ordered pairs (a centre, another atom) by distance.

    ``centres`` (Na,) and ``partners`` (Nb,) are atom indices, the same array for like pairs. ``molecules``
    (N,) leaves out pairs inside one molecule. ``pairs`` is the number of ordered pairs that can be counted:
    Na (Na - 1) for like pairs, Na Nb for unlike ones, less the ``left_out`` ones.
    """

    def __init__(
        self,
        centres: np.ndarray,
        partners: np.ndarray,
        bin_width: float,
        n_bins: int,
        molecules: np.ndarray | None = None,
    ):
        self.centres, self.partners = centres, partners
        self.like = centres is partners
        self.bin_width, self.n_bins = bin_width, n_bins
        n_a, n_b = len(centres), len(partners)
        self.pairs = n_a * (n_a - 1) if self.like else n_a * n_b
        self.left_out = 0
        self._molecules = None if molecules is None else (molecules[centres], molecules[partners])
        if molecules is not None:
            of_centres, of_partners = (np.bincount(m, minlength=molecules.max() + 1) for m in self._molecules)
            self.left_out = int((of_centres * (of_partners - 1 if self.like else of_partners)).sum())
            self.pairs -= self.left_out
        self._native = counter()
        self._numbers = None if molecules is None else [m.astype(np.int32) for m in self._molecules]
        self._small = n_a * n_b <= _AT_ONCE
        self._keep = self._small_mask() if self._small and molecules is not None else None

    def __call__(self, positions: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Ordered pairs per bin (n_bins,) int64 for positions (N, 3) Å; bin k holds k w <= r < (k + 1) w."""
        if self._is_native(box):
            many = threads() if len(self.centres) * len(self.partners) > _FEW else 1
            return self._native_count(positions, box, many)()
        return self._count(positions, box)

    def prepared(self, positions: np.ndarray, box: np.ndarray) -> Callable[[], np.ndarray]:
        """What gives the counts, whatever becomes of ``positions``; the native counter's work is still to be done."""
        if self._is_native(box):
            return self._native_count(positions, box, 1)
        counts = self._count(positions, box)
        return lambda: counts

    def _is_native(self, box: np.ndarray) -> bool:
        return self._native is not None and bool((np.asarray(box[3:]) == 90.0).all()) and self._is_dense(box)

    def _native_count(self, positions: np.ndarray, box: np.ndarray, many: int) -> Callable[[], np.ndarray]:
        sets = [np.ascontiguousarray(positions[atoms].T, dtype=np.float32) for atoms in self._sets()]
        edges = np.ascontiguousarray(box[:3], dtype=np.float32)
        a, b = sets if len(sets) == 2 else (sets[0], None)
        return partial(self._native, a, b, self._numbers, edges, self.bin_width, self.n_bins, many)

    def _count(self, positions: np.ndarray, box: np.ndarray) -> np.ndarray:
        a = np.ascontiguousarray(positions[self.centres], dtype=np.float32)
        b = a if self.like else np.ascontiguousarray(positions[self.partners], dtype=np.float32)
        if self._small:
            return self._count_small(a, b, box)
        within = self._within(box)
        count = self._count_all if within > _DENSE else self._count_near
        per_row = len(b) if within > _DENSE else len(b) * within / _NEAR_FACTOR
        rows = max(1, int(_AT_ONCE / per_row))
        parts = (slice(first, first + rows) for first in range(0, len(a), rows))
        return sum((count(a, b, box, part) for part in parts), np.zeros(self.n_bins, dtype=np.int64))

    def _sets(self) -> list[np.ndarray]:
        return [self.centres] if self.like else [self.centres, self.partners]

    def _within(self, box: np.ndarray) -> float:
        """Part of all pairs that lie within reach, about."""
        reach = self.bin_width * self.n_bins
        return min(1.0, 4.19 * reach**3 / volume_and_heights(box)[0])

    def _is_dense(self, box: np.ndarray) -> bool:
        """Whether looking at all pairs is quicker than a search for near ones."""
        return self._small or self._within(box) > _DENSE * _NATIVE_SPEED

    def _count_small(self, a, b, box) -> np.ndarray:
        from MDAnalysis.lib.distances import distance_array, self_distance_array

        distances = self_distance_array(a, box=box) if self.like else distance_array(a, b, box=box).ravel()
        if self._keep is not None:
            distances = distances[self._keep]
        return self._binned(distances) * (2 if self.like else 1)

    def _count_all(self, a, b, box, part: slice) -> np.ndarray:
        from MDAnalysis.lib.distances import distance_array, self_distance_array

        how = {"box": box, "backend": _backend()}
        if not self.like:
            return self._binned_apart(distance_array(a[part], b, **how), part, slice(None))
        if self._molecules is None:
            counts = 2 * self._binned(self_distance_array(a[part], **how))
        else:  # an atom lies in its own molecule, so the diagonal is left out
            counts = self._binned_apart(distance_array(a[part], a[part], **how), part, part)
        behind = slice(part.stop, None)
        if part.stop < len(a):
            counts += 2 * self._binned_apart(distance_array(a[part], a[behind], **how), part, behind)
        return counts

    def _binned_apart(self, distances: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Counts of a block of the distance matrix, without pairs inside molecules if those are left out."""
        if self._molecules is None:
            return self._binned(distances.ravel())
        centres, partners = self._molecules
        return self._binned(distances[centres[rows, None] != partners[None, columns]])

    def _count_near(self, a, b, box, part: slice) -> np.ndarray:
        from MDAnalysis.lib.distances import capped_distance

        near, distances = capped_distance(a[part], b, max_cutoff=self.bin_width * self.n_bins, box=box)
        i, j = near[:, 0] + part.start, near[:, 1]
        if self._molecules is not None:
            distances = distances[self._molecules[0][i] != self._molecules[1][j]]
        elif self.like:
            distances = distances[i != j]
        return self._binned(distances)

    def _binned(self, distances: np.ndarray) -> np.ndarray:
        bins = np.minimum((distances * (1.0 / self.bin_width)).astype(np.int32), self.n_bins)
        return np.bincount(bins, minlength=self.n_bins + 1)[: self.n_bins]

    def _small_mask(self) -> np.ndarray:
        """Which distances lie between different molecules, in the flat order of the distance array."""
        other = self._molecules[0][:, None] != self._molecules[1][None, :]
        return other[np.triu_indices(len(self.centres), k=1)] if self.like else other.ravel()
