"""Periodic boxes as six numbers: volume and heights."""

from functools import lru_cache

import numpy as np


def volume_and_heights(box: np.ndarray) -> tuple[float, np.ndarray]:
    """Volume (Å^3) and the distances between opposite faces (3,) of a box (a, b, c, alpha, beta, gamma).

    Å and degrees. A minimum image is unique within a sphere of half the smallest height.
    """
    volume, heights = _of(tuple(np.asarray(box, dtype=np.float64).tolist()))
    return volume, heights.copy()


@lru_cache(maxsize=8)  # most boxes never change
def _of(box: tuple[float, ...]) -> tuple[float, np.ndarray]:
    lengths, cos = np.array(box[:3]), np.cos(np.radians(np.array(box[3:])))
    gram = 1.0 + 2.0 * cos.prod() - (cos**2).sum()
    volume = float(lengths.prod() * np.sqrt(max(gram, 0.0)))
    sines = np.sqrt(1.0 - cos**2)
    faces = lengths.prod() / lengths * sines  # area of the face that lacks a is b c sin(alpha)
    return volume, volume / faces
