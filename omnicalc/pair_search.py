"""All pairs within a cutoff of one structure, by the vesin library, for any cell and any positions.

A pair (i, j, n) means: the image of atom j translated by n @ cell lies within the cutoff of atom i,

    d = (r_i - r_j) - n @ cell,    |d|² < cutoff²    (strictly: a pair at exactly the cutoff is out).

Taken in this order of operations, the vector of the reverse pair (j, i, -n) is -d to the last bit. Images of
the atom itself (i = j, n != 0) are pairs like any other; i = j with n = 0 never is. Positions are taken as
given, so n counts from unwrapped coordinates. Pairs come in one canonical order, (i, j, n_a, n_b, n_c).
"""

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError, RunError

if TYPE_CHECKING:
    from torch import Tensor

_MARGIN = 1e-6  # Å; the library looks this much further, then the exact test above decides
_THINNEST_BIN = 1.5  # Å
_LIBRARY_BINS = 1e5  # at most so many are made by the library
MOLECULE = 64  # atoms up to which looking at all pairs is faster than a search
_THREADED = 10_000  # atoms above which the library may use every thread torch may


def search_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target i (E,) int64, source j (E,) int64 and translation n (E, 3) float64, whole-numbered.

    ``positions`` (A, 3), ``cell`` (3, 3, rows are vectors) and ``cutoff`` in Å, ``pbc`` (3,) bool. Rows of
    the cell along axes that are not periodic are not used. Raises :class:`InputError` for a position that is
    not finite.
    """
    _check_finite(positions)
    if not len(positions):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    moved, box, wrapped = _enclose(positions, cell, pbc, cutoff)
    radius = _search_radius(box, cutoff + _MARGIN)
    i, j, n = _by_library(moved, box, radius)
    n += wrapped.take(i, axis=1)
    n -= wrapped.take(j, axis=1)
    lattice = np.where(pbc[:, None], cell, 0.0)
    near = _squared(positions.T, i, j, n, lattice) < cutoff * cutoff
    for axis in np.flatnonzero(~pbc):  # a wider search radius may reach images that do not exist
        near &= n[axis] == 0
    keep = np.flatnonzero(near)
    i, j, n = i.take(keep), j.take(keep), n.take(keep, axis=1)
    i, j, n = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([n, -n], axis=1)
    order = canonical_order(i, j, n, len(positions))
    return i.take(order), j.take(order), n.take(order, axis=1).T.astype(np.float64)


def search_molecules(
    positions: np.ndarray, counts: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`search_pairs` finds in structures without periodic axes, ``counts`` (S,) atoms each, one after
    another in ``positions`` (N, 3): by looking at all pairs, for many small ones much faster than a search for each.
    """
    _check_finite(positions)
    row = np.repeat(counts, counts)  # candidates of each atom: all of its structure
    first = np.repeat(np.cumsum(counts) - counts, counts)
    i = np.repeat(np.arange(len(positions)), row)
    j = np.arange(len(i)) - np.repeat(np.cumsum(row) - row - first, row)
    total = 0.0
    for x in positions.T:  # in the order of operations of _squared
        d = x.take(i)
        d -= x.take(j)
        d *= d
        total = total + d
    keep = np.flatnonzero((total < cutoff * cutoff) & (i != j))
    return i.take(keep), j.take(keep), np.zeros((len(keep), 3))


def _by_library(positions: np.ndarray, box: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs i (E,), j (E,) and shifts (3, E), all int64, in a box (3, 3) with three periodic axes: one of each pair and
    its reverse.

    Through the library's C interface: its Python one makes ctypes types for every number of pairs it comes across,
    which Python keeps for ever, 6 kB each.
    """
    from vesin._c_api import VesinAutoAlgorithm, VesinCPU, VesinDevice, VesinNeighborList, VesinOptions
    from vesin._c_lib import get_library

    library, found, error = get_library(), VesinNeighborList(), ctypes.c_char_p()
    options = VesinOptions(
        cutoff=radius,
        full=False,
        sorted=False,
        algorithm=VesinAutoAlgorithm,
        skin=0.0,
        n_threads=_threads(len(positions)),
        return_shifts=True,
        return_distances=False,
        return_vectors=False,
    )
    pointer = ctypes.POINTER(ctypes.c_double)
    positions, box = (np.ascontiguousarray(array, dtype=np.float64) for array in (positions, box))
    try:
        status = library.vesin_neighbors(
            positions.ctypes.data_as(pointer),
            len(positions),
            box.ctypes.data_as(pointer),
            (ctypes.c_bool * 3)(True, True, True),
            VesinDevice(VesinCPU, 0),
            options,
            found,
            error,
        )
        if status:
            why = (error.value or b"no reason given").decode()
            raise RunError(f"the search for neighbours of {len(positions)} atoms failed: {why}")
        pair, shift = np.empty((found.length, 2), dtype=np.uint64), np.empty((found.length, 3), dtype=np.int32)
        if found.length:
            ctypes.memmove(pair.ctypes.data, found.pairs, pair.nbytes)
            ctypes.memmove(shift.ctypes.data, found.shifts, shift.nbytes)
    finally:
        library.vesin_free(found)
    # one contiguous row per coordinate from here on: several times faster in numpy than rows of three
    i, j = pair.T.astype(np.int64)
    return i, j, shift.T.astype(np.int64, order="C")


def translation(n: "Tensor", cell: "Tensor") -> "Tensor":
    """n @ cell for rows n (E, 3) and one cell (1, 3, 3) or one per row (E, 3, 3).

    In one fixed order of operations, because the cutoff test must come out the same to the last bit whoever
    makes it, and a matrix product promises no order.
    """
    return n[:, :1] * cell[:, 0] + n[:, 1:2] * cell[:, 1] + n[:, 2:] * cell[:, 2]


def translation_along(n: np.ndarray, column: np.ndarray) -> np.ndarray:
    """One coordinate (E,) of :func:`translation`, in the same order of operations.

    From n (3, E) and a column of the cell (3,), or one per pair (3, E): in numpy by far the faster layout.
    """
    return n[0] * column[0] + n[1] * column[1] + n[2] * column[2]


def _squared(x: np.ndarray, i: np.ndarray, j: np.ndarray, n: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """|d|² (E,) from positions (3, A) and shifts (3, E); the order of operations is :func:`translation`'s."""
    total = 0.0
    for axis, column in enumerate(cell.T):
        d = x[axis].take(i)
        d -= x[axis].take(j)
        d -= translation_along(n, column)
        d *= d
        total = total + d
    return total


def _check_finite(positions: np.ndarray) -> None:
    if not np.isfinite(positions).all():
        wrong = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise InputError(
            f"the position of atom {wrong} is {positions[wrong].tolist()}; neighbours need finite positions"
        )


def _threads(n_atoms: int) -> int:
    import torch

    return torch.get_num_threads() if n_atoms > _THREADED else 1  # small searches end before threads start


def _enclose(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same problem with three periodic axes: moved positions (A, 3), box (3, 3), cells taken off (3, A).

    The library can run for minutes on partly periodic cells and overflows far outside the cell. So atoms are
    wrapped along the periodic axes, and every other axis becomes a box vector perpendicular to them, too long
    for its images to matter. Along it, empty stretches are shortened to 1.5 cutoffs: atoms on either side
    stay out of each other's reach, and atoms far away cost nothing.
    """
    box, moved = cell.copy(), positions.copy()
    rows = cell[pbc]
    normals = np.linalg.svd(rows)[2][len(rows) :] if len(rows) else np.eye(3)
    gap = 1.5 * (cutoff + _MARGIN)
    for axis, unit in zip(np.flatnonzero(~pbc), normals, strict=True):
        height = positions @ unit
        order = np.argsort(height)
        squeezed = np.zeros(len(height))
        squeezed[order[1:]] = np.cumsum(np.minimum(np.diff(height[order]), gap))
        moved += np.multiply.outer(squeezed - height, unit)
        box[axis] = (squeezed.max() + 2.0 * gap) * unit
    wrapped = np.floor(moved @ np.linalg.inv(box))
    wrapped[:, ~pbc] = 0.0
    return moved - wrapped @ box, box, np.ascontiguousarray(wrapped.T).astype(np.int64)


def _search_radius(box: np.ndarray, radius: float) -> float:
    """``radius``, or more where the library's bins would be a waste (thinner than atoms) or would break it.

    When there are too many bins it scales their number along every axis by one factor and truncates, which
    leaves none along the short axes of a very long box.
    """
    radius = max(radius, _THINNEST_BIN)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    while True:
        bins = np.maximum(np.floor(heights / radius), 1.0)
        scale = np.cbrt(_LIBRARY_BINS / bins.prod())
        if scale >= 1.0 or (bins * scale).min() > 3.0:
            return radius
        radius *= 2.0


def canonical_order(i: np.ndarray, j: np.ndarray, n: np.ndarray, n_atoms: int) -> np.ndarray:
    """The order (E,) of pairs by (i, j, n_a, n_b, n_c); ``n`` (3, E)."""
    if not i.size:
        return np.zeros(0, dtype=np.int64)
    low = [int(row.min()) for row in n]
    spans = [int(row.max()) - least + 1 for row, least in zip(n, low, strict=True)]
    if n_atoms * n_atoms * math.prod(spans) >= 2**63:  # one key per pair would overflow
        return np.lexsort((n[2], n[1], n[0], j, i))
    key = i * n_atoms + j
    for row, least, span in zip(n, low, spans, strict=True):
        if span > 1:
            key = key * span + (row - least)
    return np.argsort(key, kind="stable")
