"""Pairs of atoms within a cutoff, minimum image in any triclinic box; searched for anew only when atoms have moved.

A search within cutoff + skin finds all that can come within the cutoff while no atom moves by more than half the skin
(Verlet, Phys. Rev. 159, 98 (1967)). Frames close in time share a search; where the first reuse already fails (frames
far apart, or a box that changes), every frame has its own, without a skin.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.one_set import within_one_set
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.within import within
from omnicalc.errors import InputError

SKIN = 0.8  # Å
_FEW = 20_000  # pairs that are quickly all looked at
_SAME_BOX = 1e-6  # relative
_ROUNDING = 1e-3  # Å, of coordinates in single precision


class NearPairs:
    """All pairs (an atom of a, another of b) up to ``cutoff`` Å; no atom may be twice in a or in b.

    ``molecules`` (N,) leaves out pairs inside one.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, cutoff: float, molecules: np.ndarray | None = None):
        self.a, self.b, self.cutoff = a.astype(np.int64), b.astype(np.int64), float(cutoff)
        self._molecules = None if molecules is None else (molecules[a], molecules[b])
        self._overlap = bool(np.isin(a, b).any())
        self._moving = np.union1d(a, b)
        self._row = [np.full(len(self._moving), -1) for _ in "ab"]  # place in a and in b of each moving atom
        for row, atoms in zip(self._row, (a, b), strict=True):
            row[np.searchsorted(self._moving, atoms)] = np.arange(len(atoms))
        self._skin, self._uses = SKIN, 0
        self._then: np.ndarray | None = None  # positions of the moving atoms at the last search
        self._box: np.ndarray | None = None
        self._found: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places in a and in b of each pair (n,) int64, by place, and distances (n,) Å; InputError for a small box."""
        i, j = self.candidates(frame)
        places, distances = within(frame, self._of_a, self._of_b, self.cutoff)
        return i[places], j[places], distances

    def candidates(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Places in a and in b of the pairs that may be within the cutoff: the same tuple while one search serves."""
        check_reach(frame, self.cutoff)
        if self._usable(frame):
            self._uses += 1
        else:
            self._search(frame)
        return self._found

    def _usable(self, frame: Frame) -> bool:
        if self._then is None or not self._skin or (self._box is None) != (frame.box is None):
            return False
        if frame.box is not None and (np.abs(frame.box - self._box) > _SAME_BOX * self._box).any():
            return False
        moved = frame.positions[self._moving] - self._then
        near = (self._skin / 2 - _ROUNDING) ** 2
        if float(np.einsum("ij,ij->i", moved, moved).max()) < near:
            return True  # as it is without looking for images
        if frame.box is None:
            return False
        moved = _nearest_image(moved, frame.box)
        return float(np.einsum("ij,ij->i", moved, moved).max()) < near

    def _within(self, frame: Frame, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """All pairs up to ``reach`` Å, an atom with itself perhaps among them."""
        from MDAnalysis.lib.distances import capped_distance

        x = frame.positions
        if len(self.a) * len(self.b) <= _FEW:
            sets, how = (x[self.a], x[self.b]), "bruteforce" if frame.box is None else None
            near = capped_distance(*sets, max_cutoff=reach, box=frame.box, method=how, return_distances=False)
            return near.T.astype(np.int64)
        # the library searches one set several times faster than two
        near = within_one_set(x[self._moving], reach, frame.box)
        p, q = np.concatenate([near, near[:, ::-1]]).T
        i, j = self._row[0][p], self._row[1][q]
        both = (i >= 0) & (j >= 0)
        return i[both], j[both]

    def _search(self, frame: Frame) -> None:
        if self._then is not None and self._uses == 0:
            self._skin = 0.0
        if frame.box is not None:  # a reach beyond half the box would miss images
            room = float(frame.heights.min()) / 2 - self.cutoff
            self._skin = self._skin if room > self._skin else 0.0
        self._uses, self._box = 0, None if frame.box is None else frame.box.copy()
        self._then = frame.positions[self._moving].copy()
        i, j = self._within(frame, self.cutoff + self._skin)
        if self._molecules is not None:
            keep = self._molecules[0][i] != self._molecules[1][j]
            i, j = i[keep], j[keep]
        elif self._overlap:
            keep = self.a[i] != self.b[j]
            i, j = i[keep], j[keep]
        order = np.lexsort((j, i))
        self._found = i[order], j[order]
        self._of_a, self._of_b = self.a[i[order]], self.b[j[order]]


def _nearest_image(vectors: np.ndarray, box: np.ndarray) -> np.ndarray:
    if (box[3:] == 90.0).all():
        lengths = box[:3].astype(vectors.dtype)
        return vectors - lengths * np.round(vectors / lengths)
    from MDAnalysis.lib.distances import minimize_vectors

    return minimize_vectors(vectors, box)


def check_reach(frame: Frame, cutoff: float) -> None:
    """InputError if a cutoff (Å) goes beyond half the smallest height of the frame's box."""
    if frame.box is None:
        return
    half = float(frame.heights.min()) / 2
    if cutoff > half * (1 + 1e-6):
        raise InputError(
            f"a cutoff of {cutoff:g} Å is beyond {half:.3f} Å, half the smallest cell height of frame {frame.index}, "
            f"where an atom would meet its own images; give less"
        )
