"""The cell as DCD and PDB know it: three lengths and three angles, a along x and b in the xy plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VACUUM = 1000.0  # Å, written for an axis of a partly periodic structure that has no cell vector
_FLAT = 1e-6  # of unit vectors: singular values below it mean a vector that the others span


def heights(cell: np.ndarray) -> np.ndarray:
    """(3,) Å: how far apart the two faces of ``cell`` (3, 3) are that each of its vectors joins."""
    areas = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    return abs(np.linalg.det(cell)) / areas


@dataclass(frozen=True, eq=False)
class Box:
    """A periodic cell in the standard orientation, and the way there from the structure's own."""

    dimensions: np.ndarray  # (6,) a, b, c in Å, alpha, beta, gamma in degrees
    rotation: (
        np.ndarray | None
    )  # (3, 3) with det +1: positions @ rotation is in the standard orientation; None: it is so already

    def orient(self, positions: np.ndarray) -> np.ndarray:
        """Positions (N, 3) turned to go with ``dimensions``."""
        return positions if self.rotation is None else positions @ self.rotation


def standard_box(cell: np.ndarray, pbc: np.ndarray) -> Box | None:
    """The box of ``cell`` (3, 3), rows in Å, with ``pbc`` (3,); None when nothing is periodic.

    DCD and PDB say nothing of how a cell lies in space, so a cell in another orientation is turned, and the
    positions with it. A left-handed cell is written as (a, b, -c), which spans the same lattice. Axes without
    periodicity keep their cell vector where there is one that the others do not span.
    """
    if not np.any(pbc):
        return None
    rows = _complete(np.array(cell, dtype=np.float64), np.asarray(pbc, dtype=bool))
    if np.linalg.det(rows) < 0:
        rows[2] = -rows[2]
    q, r = np.linalg.qr(rows.T)  # rows = r.T @ q.T: lower triangular times a rotation
    rotation = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    standard = rows @ rotation
    if np.abs(standard - rows).max() < 1e-9 * np.abs(rows).max():
        rotation = None
    lengths = np.linalg.norm(rows, axis=1)
    unit = rows / lengths[:, None]
    cosines = [unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]
    angles = [90.0 if abs(c) < 1e-14 else float(np.degrees(np.arccos(np.clip(c, -1.0, 1.0)))) for c in cosines]
    return Box(np.array([*lengths, *angles]), rotation)


def _complete(rows: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Three vectors that span space: those of periodic axes, and others where they can stay."""
    from ase.geometry import complete_cell

    kept = np.flatnonzero(pbc).tolist()
    for k in np.flatnonzero(~pbc & rows.any(axis=1)):
        units = rows[[*kept, k]] / np.linalg.norm(rows[[*kept, k]], axis=1, keepdims=True)
        if np.linalg.matrix_rank(units, tol=_FLAT) > len(kept):
            kept.append(k)
    missing = np.isin(range(3), kept, invert=True)
    rows[missing] = 0.0
    if missing.any():
        rows = complete_cell(rows)
        rows[missing] *= VACUUM
    return rows
