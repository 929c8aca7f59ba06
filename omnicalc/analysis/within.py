"""Which of many listed pairs of atoms lie within a distance; minimum image in any triclinic box.

In upright boxes, and without a box, native code does it where it was built; elsewhere MDAnalysis does.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.native.library import selector
from omnicalc.analysis.trajectory import Frame


def within(frame: Frame, a: np.ndarray, b: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Places (m,) in the list of pairs of atoms a and b (n,) int64 of those up to ``cutoff`` Å, and their distances."""
    native = selector()
    if native is not None and (frame.box is None or (frame.box[3:] == 90.0).all()):
        edges = None if frame.box is None else frame.box[:3].astype(np.float32)
        return native(np.ascontiguousarray(frame.positions, dtype=np.float32), a, b, edges, cutoff)
    if not len(a):
        return np.empty(0, dtype=np.int64), np.empty(0)
    from MDAnalysis.lib.distances import calc_bonds

    x, box = frame.compact
    distances = calc_bonds(x[a], x[b], box=box)
    places = np.flatnonzero(distances <= cutoff)
    return places, distances[places]
