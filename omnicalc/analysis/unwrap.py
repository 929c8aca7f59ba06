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
    """Feed frames in order; each call returns the displacements since the first (N, 3) float64, Å."""

    def __init__(self):
        self._last: np.ndarray | None = None
        self._sum: np.ndarray | None = None
        self.longest = 0.0  # largest step of any atom along a box vector, as a fraction of it

    def __call__(self, frame: Frame) -> np.ndarray:
        here = frame.positions.astype(np.float64)
        box = None if frame.box is None else _vectors(frame.box)
        if box is not None:
            inverse = np.linalg.inv(box)
            fractions = here @ inverse
            here = (fractions - np.floor(fractions)) @ box
        if self._last is None:
            self._sum = np.zeros_like(here)
        else:
            step = here - self._last
            if box is not None:
                fractions = step @ inverse
                fractions -= np.round(fractions)
                self.longest = max(self.longest, float(np.abs(fractions).max()))
                step = fractions @ box
            self._sum += step
        self._last = here
        return self._sum


def _vectors(box: np.ndarray) -> np.ndarray:
    from MDAnalysis.lib.mdamath import triclinic_vectors

    return triclinic_vectors(box, dtype=np.float64)
