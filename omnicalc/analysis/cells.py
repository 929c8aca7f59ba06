"""Periodic boxes as six numbers: volume and heights, the most compact cell, and that of a cell open along some axes."""

from functools import lru_cache

import numpy as np

OPEN = 4000.0  # Å, length of a box along an axis without periodicity: twice as far as atoms may spread along it

NEEDS_CELL = (
    "analyse a run that was made with a full cell; where the run had one and its file leaves it out, as plain .xyz "
    "does, write .extxyz with it (ASE: atoms.cell, atoms.pbc)"
)


def periodic_cell(cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Vectors (3, 3) in rows, right-handed, and box (6,) of the lattice of ``cell`` (3, 3), Å and degrees.

    Along axes that ``pbc`` (3,) leaves open, vectors of ``OPEN`` Å, perpendicular to all others, stand for those of
    the cell: nearest images are then those along the periodic axes. None where nothing is periodic, or no volume is
    spanned.
    """
    from ase.geometry import complete_cell
    from ase.geometry.cell import cell_to_cellpar

    rows = np.where(np.asarray(pbc)[:, None], cell, 0.0)
    missing = ~rows.any(axis=1)
    if missing.all():
        return None
    with np.errstate(invalid="ignore"):
        rows = complete_cell(rows)
    rows[missing] *= OPEN
    volume = np.linalg.det(rows) if np.isfinite(rows).all() else 0.0
    if abs(volume) < 1e-9:
        return None
    if volume < 0:
        rows = -rows  # the same lattice: in a cell of the other hand the structure would be its mirror image
    box = cell_to_cellpar(rows)
    box[3:] = np.round(box[3:], 10)  # 90 degrees are exactly that
    return rows, box


def compact_cell(box: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The most compact cell of a box's lattice (Minkowski-reduced): its box (6,), and the rotation (3, 3) that turns
    positions in rows as that box stands. None for an upright box, and for one that is compact already.

    Nearest images are found among the neighbouring cells, and only of a compact cell they are all there.
    """
    return None if (box[3:] == 90.0).all() else _compact(tuple(np.asarray(box, dtype=np.float64).tolist()))


@lru_cache(maxsize=8)  # most boxes never change
def _compact(box: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    from ase.geometry import minkowski_reduce
    from ase.geometry.cell import cell_to_cellpar
    from MDAnalysis.lib.mdamath import triclinic_vectors

    rows, combined = minkowski_reduce(triclinic_vectors(box, dtype=np.float64))
    if np.array_equal(combined, np.eye(3)):
        return None
    if np.linalg.det(rows) < 0:
        rows = -rows
    found = cell_to_cellpar(rows)
    return found, np.linalg.inv(rows) @ triclinic_vectors(found, dtype=np.float64)


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
