"""Displacements of atoms across periodic boundaries, in boxes that may change from frame to frame.

    u(t+1) = u(t) + nearest image of ( w(t+1) - w(t) ) in the box at t+1

with w(t) the position wrapped into the box at t. Adding up nearest-image steps leaves diffusion as it is when a
barostat scales the box; taking whole boxes off the wrapped position does not (von Bulow, Bullerjahn, Hummer,
J. Chem. Phys. 153, 021101 (2020); Kulke, Vermaas, J. Chem. Theory Comput. 18, 6161 (2022)). It is right as long as
no atom moves by half a box between two frames.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.trajectory import Frame

FAR_STEP = 0.35  # of a box length in one step: from here on nearest images are not to be trusted


class Unwrapper:
    """Feed frames in order; each call returns the displacements since the first (N, 3) float64, Å, to be left as it is.

    Several analyses may ask for the same frame: it is unwrapped once. A frame that does not lie behind the last one
    starts anew.
    """

    def __init__(self):
        self._frame: Frame | None = None
        self._last: np.ndarray | None = None
        self._sum: np.ndarray | None = None
        self.longest = 0.0  # largest step of any atom along a box vector, as a fraction of it

    def __call__(self, frame: Frame) -> np.ndarray:
        if frame is self._frame:
            return self._sum
        if self._frame is not None and frame.index <= self._frame.index:
            self._last, self.longest = None, 0.0
        self._frame = frame
        here = frame.positions.astype(np.float64)
        cell = None if frame.box is None else _Cell(frame.box)
        if cell is not None:
            fractions = cell.fractions(here)
            fractions -= np.floor(fractions)
            here = cell.vectors(fractions)
        if self._last is None:
            self._sum = np.zeros_like(here)
        else:
            step = here - self._last
            if cell is not None:
                fractions = cell.fractions(step)
                fractions -= np.round(fractions)
                self.longest = max(self.longest, float(fractions.max()), float(-fractions.min()))
                step = cell.vectors(fractions)
            self._sum += step
        self._last = here
        return self._sum


class _Cell:
    """Between vectors (N, 3) in Å and in parts of the box; edge by edge where the box is upright."""

    def __init__(self, box: np.ndarray):
        self._edges = box[:3] if (box[3:] == 90.0).all() else None
        if self._edges is None:
            from MDAnalysis.lib.mdamath import triclinic_vectors

            self._vectors = triclinic_vectors(box, dtype=np.float64)
            self._inverse = np.linalg.inv(self._vectors)

    def fractions(self, vectors: np.ndarray) -> np.ndarray:
        return vectors / self._edges if self._edges is not None else vectors @ self._inverse

    def vectors(self, fractions: np.ndarray) -> np.ndarray:
        return fractions * self._edges if self._edges is not None else fractions @ self._vectors
