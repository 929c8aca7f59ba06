"""Pairs of atoms within a cutoff, minimum image in any triclinic box."""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.cells import volume_and_heights
from omnicalc.analysis.trajectory import Frame
from omnicalc.errors import InputError


class NearPairs:
    """All pairs (an atom of a, another of b) up to ``cutoff`` Å; ``molecules`` (N,) leaves out pairs inside one."""

    def __init__(self, a: np.ndarray, b: np.ndarray, cutoff: float, molecules: np.ndarray | None = None):
        self.a, self.b, self.cutoff = a, b, float(cutoff)
        self._molecules = None if molecules is None else (molecules[a], molecules[b])
        self._overlap = bool(np.isin(a, b).any())

    def __call__(self, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions in a and in b of each pair (n,), and distances (n,) Å. Raises InputError for a small box."""
        from MDAnalysis.lib.distances import capped_distance

        check_reach(frame, self.cutoff)
        near, distances = capped_distance(
            frame.positions[self.a], frame.positions[self.b], max_cutoff=self.cutoff, box=frame.box
        )
        i, j = near.T
        if self._molecules is not None:
            keep = self._molecules[0][i] != self._molecules[1][j]
        elif self._overlap:
            keep = self.a[i] != self.b[j]
        else:
            return i, j, distances
        return i[keep], j[keep], distances[keep]


def check_reach(frame: Frame, cutoff: float) -> None:
    """InputError if a cutoff (Å) goes beyond half the smallest height of the frame's box."""
    if frame.box is None:
        return
    half = float(volume_and_heights(frame.box)[1].min()) / 2
    if cutoff > half * (1 + 1e-6):
        raise InputError(
            f"a cutoff of {cutoff:g} Å is beyond {half:.3f} Å, half the smallest cell height of frame {frame.index}, "
            f"where an atom would meet its own images; give less"
        )
