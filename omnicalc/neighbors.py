"""Neighbour lists: which atoms, and which of their periodic images, lie within the cutoff of each atom.

A pair (i, j, n) means: the image of source atom j translated by n @ cell is a neighbour of target atom i. Its vector is

    d = r_i - (r_j + n @ cell),    and it is in the list when |d|² < cutoff²  (strictly; a pair at exactly the cutoff is out).

Images of the atom itself (i = j with n != 0) are neighbours like any other; i = j with n = 0 never is. Positions are taken as given, so n
counts from the unwrapped coordinates. Every list is in one canonical order, by (i, j, n_a, n_b, n_c), whoever made it: a list kept with a
skin equals a fresh search bit for bit, slot for slot, which is what makes a restarted run repeat the uninterrupted one exactly.
"""

from __future__ import annotations

import math
import itertools
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from omnicalc.systems import Systems

_MARGIN = 1e-6  # Å; the library searches this much further, then the exact test above decides
_THINNEST_BIN = 1.5  # Å
_THREADED = 10_000  # atoms above which the search may use all of torch's threads


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Dense directed neighbours: row i holds every source within ``cutoff`` of target i, then padding.

    N atoms, K slots (the largest number of neighbours of any atom; 0 when no atom has one).
    """

    index: Tensor  # (N, K) int64, source atom j; padding slots hold i itself
    shift: Tensor  # (N, K, 3) float64, whole-numbered image translation n; zeros in padding
    mask: Tensor  # (N, K) bool, False = padding
    cutoff: float  # Å
    known: _Offset | None = field(default=None, repr=False)  # n @ cell for a cell that did not change since the search

    @property
    def n_slots(self) -> int:
        return self.index.shape[1]

    def vectors(self, positions: Tensor, cell: Tensor, system: Tensor, strain: Tensor | None = None) -> Tensor:
        """Pair vectors d = r_i - (r_j + n @ cell), (N, K, 3) float64, Å, differentiable in every float argument.

        ``positions`` (N, 3) float64; ``cell`` (S, 3, 3) float64; ``system`` (N,) int64, the structure of each atom; ``strain``
        (S, 3, 3) float64: if given, d becomes d @ (1 + strain), so that the energy's derivative by it at zero is volume times stress.
        Padding slots hold (2 cutoff, 0, 0) to rounding: longer than the cutoff, finite, the same at any positions, cell and strain.
        """
        n_atoms, n_slots = self.index.shape
        known = self.known
        offset = known.value if known is not None and known.holds_for(cell) else self._offset(cell, system)
        # index_select, not indexing: its backward is one index_add, several times faster than a general accumulate
        source = positions.index_select(0, self.index.reshape(-1)).view(n_atoms, n_slots, 3)
        d = positions[:, None] - (source + offset)
        if strain is None:
            return d
        return d + torch.where(self.mask[..., None], _apply(d, strain, system), 0.0)

    def _offset(self, cell: Tensor, system: Tensor) -> Tensor:
        """n @ cell (N, K, 3); in padding, where the source is the target itself, minus the padding vector."""
        padding = cell.new_tensor([-2.0 * self.cutoff, 0.0, 0.0])
        return torch.where(self.mask[..., None], _apply(self.shift, cell, system), padding)

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Flat view: target i (E,), source j (E,), shift n (E, 3), sorted by i."""
        i, slot = self.mask.nonzero(as_tuple=True)
        return i, self.index[i, slot], self.shift[i, slot]

    def to(self, device: torch.device | str) -> Neighbors:
        """The same list on another device."""
        return Neighbors(self.index.to(device), self.shift.to(device), self.mask.to(device), self.cutoff)


@dataclass(frozen=True, eq=False)
class _Offset:
    """n @ cell (N, K, 3) with the very tensor it was computed from: recognised by identity, and stale once that is written to."""

    value: Tensor
    cell: Tensor
    version: int

    def holds_for(self, cell: Tensor) -> bool:
        return cell is self.cell and cell._version == self.version and not cell.requires_grad


def _apply(rows: Tensor, matrix: Tensor, system: Tensor) -> Tensor:
    """rows (N, K, 3) times the (3, 3) matrix of each row's structure; ``matrix`` (S, 3, 3)."""
    return rows @ (matrix[0] if matrix.shape[0] == 1 else matrix.index_select(0, system))


def neighbors(systems: Systems, cutoff: float) -> Neighbors:
    """All neighbours within ``cutoff`` (Å) by one exact search. Raises :class:`InputError` for a bad cutoff or bad positions."""
    i, j, shift = _search(systems, _checked("cutoff", cutoff, least=0.0, strictly=True))
    return _dense(i, j, shift, systems.n_atoms, float(cutoff))


def _checked(name: str, value: float, least: float, strictly: bool) -> float:
    value = float(value)
    if not math.isfinite(value) or value < least or (strictly and value == least):
        raise InputError(f"{name} {value} Å given; a finite number {'above' if strictly else 'of at least'} {least} Å is needed")
    return value


def _search(systems: Systems, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Flat pairs of a whole batch on its own device: i (E,), j (E,), shift (E, 3) float64, in canonical order."""
    positions, cell = systems.positions.detach().cpu().numpy(), systems.cell.detach().cpu().numpy()
    pbc = systems.pbc.cpu().numpy()
    found, first = [], 0
    for s, count in enumerate(np.bincount(systems.system.cpu().numpy(), minlength=len(cell)).tolist()):
        i, j, shift = search_pairs(positions[first : first + count], cell[s], pbc[s], cutoff)
        found.append((i + first, j + first, shift))
        first += count
    i, j, shift = (np.concatenate(column) for column in zip(*found, strict=True))
    device = systems.positions.device
    return torch.from_numpy(i).to(device), torch.from_numpy(j).to(device), torch.from_numpy(shift).to(device)


def search_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one structure as numpy arrays: i (E,) int64, j (E,) int64, n (E, 3) float64 but whole, in canonical order.

    ``positions`` (A, 3), ``cell`` (3, 3) and ``cutoff`` in Å, ``pbc`` (3,) bool. Rows of the cell along axes that are not periodic are not
    used. Raises :class:`InputError` when a position is not finite.
    """
    import vesin  # loads a shared library: only where a search is made

    if not np.isfinite(positions).all():
        wrong = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise InputError(f"the position of atom {wrong} is {positions[wrong].tolist()}; neighbours need finite positions")
    if not len(positions):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    moved, box, wrapped = _enclose(positions, cell, pbc, cutoff)
    threads = 1 if len(positions) < _THREADED else torch.get_num_threads()
    library = vesin.NeighborList(cutoff=_search_radius(box, cutoff + _MARGIN), full_list=True, n_threads=threads)
    pair, shift = library.compute(moved, box, True, quantities="PS")
    i, j = np.ascontiguousarray(pair.T).astype(np.int64)
    n = shift.astype(np.int64)
    n += wrapped[i]
    n -= wrapped[j]
    d = positions[i] - (positions[j] + _translation(n, np.where(pbc[:, None], cell, 0.0)))
    d *= d
    keep = np.flatnonzero(d[:, 0] + d[:, 1] + d[:, 2] < cutoff * cutoff)
    i, j, n = i[keep], j[keep], n[keep]
    order = _canonical_order(i, j, n, len(positions))
    return i[order], j[order], n[order].astype(np.float64)


def _enclose(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same problem with three periodic axes: moved positions (A, 3), box (3, 3), and the whole cells (A, 3) that were taken off.

    The library may run for minutes on partly periodic cells and overflow far outside the cell. So atoms are wrapped along the
    periodic axes, and every other axis becomes a box vector perpendicular to them, too long for its images to matter. Along it, empty
    stretches are shortened to 1.5 cutoffs: atoms on either side stay out of each other's reach, and atoms far away cost nothing.
    """
    box, moved = cell.copy(), positions.copy()
    rows = cell[pbc]
    normal = np.linalg.svd(rows)[2][len(rows) :] if len(rows) else np.eye(3)
    gap = 1.5 * (cutoff + _MARGIN)
    for axis, unit in zip(np.flatnonzero(~pbc), normal, strict=True):
        height = positions @ unit
        order = np.argsort(height)
        squeezed = np.zeros(len(height))
        squeezed[order[1:]] = np.cumsum(np.minimum(np.diff(height[order]), gap))
        moved += np.multiply.outer(squeezed - height, unit)
        box[axis] = (squeezed.max() + 2.0 * gap) * unit
    wrapped = np.floor(moved @ np.linalg.inv(box))
    wrapped[:, ~pbc] = 0.0
    return moved - wrapped @ box, box, wrapped.astype(np.int64)


def _search_radius(box: np.ndarray, radius: float) -> float:
    """``radius``, or more: bins thinner than atoms only cost time, and the library, which makes at most 1e5 bins, would make none along
    an axis of a box that is much longer than wide."""
    radius = max(radius, _THINNEST_BIN)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    while True:
        bins = np.maximum(np.floor(heights / radius), 1.0)
        scale = np.cbrt(1e5 / bins.prod())  # the library scales the bins of all axes by it when they are too many, and truncates
        if scale >= 1.0 or (bins * scale).min() > 3.0:
            return radius
        radius *= 2.0


def _canonical_order(i: np.ndarray, j: np.ndarray, n: np.ndarray, n_atoms: int) -> np.ndarray:
    if not i.size:
        return np.zeros(0, dtype=np.int64)
    low = n.min(axis=0)
    spans = [int(x) for x in n.max(axis=0) - low + 1]
    if n_atoms * n_atoms * math.prod(spans) >= 2**63:  # one key per pair would overflow
        return np.lexsort((n[:, 2], n[:, 1], n[:, 0], j, i))
    key = i * n_atoms + j
    for column, least, span in zip(n.T, low.tolist(), spans, strict=True):
        if span > 1:
            key = key * span + (column - least)
    return np.argsort(key, kind="stable")


def _translation(n, cell):
    """n @ cell for rows n (E, 3), one cell (3, 3) or one per row (E, 3, 3): numpy and torch alike, in one fixed order of operations.

    The cutoff test must come out the same to the last bit whoever makes it, which a matrix product does not promise.
    """
    cell = cell if cell.ndim == 3 else cell[None]
    return n[:, :1] * cell[:, 0] + n[:, 1:2] * cell[:, 1] + n[:, 2:] * cell[:, 2]


def _dense(i: Tensor, j: Tensor, shift: Tensor, n_atoms: int, cutoff: float) -> Neighbors:
    """Rows of equal length from flat pairs sorted by i."""
    count = torch.bincount(i, minlength=n_atoms)
    n_slots = int(count.max()) if n_atoms else 0
    index = torch.arange(n_atoms, device=i.device)[:, None].repeat(1, n_slots)
    rows = index.new_zeros(n_atoms, n_slots, 3, dtype=torch.float64)
    mask = index.new_zeros(n_atoms, n_slots, dtype=torch.bool)
    # place of pair e = its row's first slot + how many pairs of that row came before it
    place = torch.arange(len(i), device=i.device) + (torch.arange(n_atoms, device=i.device) * n_slots - count.cumsum(0) + count)[i]
    index.view(-1)[place] = j
    rows.view(-1, 3)[place] = shift
    mask.view(-1)[place] = True
    return Neighbors(index, rows, mask, cutoff)


def neighbors_reference(systems: Systems, cutoff: float) -> Neighbors:
    """The same list by brute force over images: slow, simple, and independent of the search library. For tests.

    Along periodic axis k with dual vector b_k (rows a_m of the cell, a_m · b_k = 1 if m = k else 0), the image of j nearest to i has a
    shift near f_k = (r_i - r_j) · b_k, and |d| < cutoff implies |n_k - f_k| < cutoff |b_k|. So every pair is found among the shifts
    round(f) + m with |m_k| <= cutoff |b_k| + 1/2, for any cell however thin or skewed.
    """
    cutoff = _checked("cutoff", cutoff, least=0.0, strictly=True)
    found = []
    for s in range(systems.n_systems):
        atoms = (systems.system == s).nonzero()[:, 0]
        found.append(_brute_force(systems.positions[atoms].detach(), systems.cell[s].detach(), systems.pbc[s], cutoff, atoms))
    i, j, shift = (torch.cat(column) for column in zip(*found, strict=True))
    rows = sorted(zip(i.tolist(), j.tolist(), shift.tolist(), strict=True))
    i = torch.tensor([row[0] for row in rows], dtype=torch.int64, device=i.device)
    j = torch.tensor([row[1] for row in rows], dtype=torch.int64, device=i.device)
    shift = torch.tensor([row[2] for row in rows], dtype=torch.float64, device=i.device).reshape(-1, 3)
    return _dense(i, j, shift, systems.n_atoms, cutoff)


def _brute_force(
    positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, atoms: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of one structure with the atom numbers ``atoms`` (A,); arrays over (source, image) for one target at a time."""
    periodic = pbc.nonzero()[:, 0]
    lattice = cell[periodic]  # (P, 3)
    dual = torch.linalg.pinv(lattice).T if len(periodic) else lattice
    reach = [math.floor(cutoff * float(b.norm()) + 0.5) for b in dual]
    images = list(itertools.product(*(range(-r, r + 1) for r in reach)))
    images = torch.tensor(images, dtype=torch.float64, device=cell.device).reshape(len(images), len(periodic))
    found = []
    for a in range(len(atoms)):
        n = cell.new_zeros(len(atoms), len(images), 3)
        n[..., periodic] = ((positions[a] - positions) @ dual.T).round()[:, None] + images
        d = positions[a] - (positions[:, None] + _translation(n.reshape(-1, 3), cell).view_as(n))
        near = d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2 < cutoff * cutoff
        near[a] &= n[a].any(dim=1)
        b, m = near.nonzero(as_tuple=True)
        found.append((atoms[a].expand(len(b)), atoms[b], n[b, m]))
    i, j, shift = (torch.cat(column) for column in zip(*found, strict=True))
    return i, j, shift


class NeighborList:
    """A list kept between calls: searched at cutoff + skin, then filtered by true distance until an atom has moved more than skin/2.

    :meth:`update` returns exactly what :func:`neighbors` would, in the same order, whatever happened before; only its cost depends on
    the stored list. ``rebuilds`` counts the searches.

    The default skin of 0.5 Å is the cheapest for liquid water on a CPU (64 molecules, cutoff 4.5 Å, hydrogens moving about 0.03 Å per
    step): thinner skins search too often, thicker ones filter too many pairs.
    """

    def __init__(self, cutoff: float, skin: float = 0.5):
        self.cutoff = _checked("cutoff", cutoff, least=0.0, strictly=True)
        self.skin = _checked("skin", skin, least=0.0, strictly=False)
        self.rebuilds = 0
        self._built: _Built | None = None

    @property
    def reference(self) -> Tensor | None:
        """(N, 3) positions, Å, at which the stored list was searched; None before the first."""
        return None if self._built is None else self._built.systems.positions

    def rebuild_at(self, systems: Systems) -> None:
        """Search at these positions now, as a restarted run does with the reference positions it saved."""
        self._built = _Built.search(systems, self.cutoff, self.skin)
        self.rebuilds += 1

    def update(self, systems: Systems) -> Neighbors:
        """Exactly the pairs within the cutoff at these positions. Raises :class:`InputError` for positions that are not finite."""
        if self._built is None or not self._built.serves(systems, self.skin):
            self.rebuild_at(systems)
        return self._built.within(systems, self.cutoff)


@dataclass(eq=False)
class _Built:
    """Flat pairs (E,) found at ``systems`` and what :meth:`within` needs of them at every step, laid out for speed.

    The tables that the dense rows are taken from have N more entries after the E pairs: the padding entry of each atom.
    """

    systems: Systems  # a copy: in-place changes by the caller are noticed
    target: Tensor  # (3, E) int64: i, once per coordinate, because gather along rows is the fastest selection there is
    source: Tensor  # (3, E) int64: j
    offset: Tensor  # (3, E) float64, n @ cell
    row: Tensor  # (N + 1,) int64: the pairs of atom i are row[i] .. row[i + 1] - 1
    index: Tensor  # (E + N,) int64
    shift: Tensor  # (E + N, 3) float64
    translation: Tensor  # (E + N, 3) float64, Å
    padding: Tensor  # (N,) int64: E + i
    slots: Tensor  # (K_max,) int64: 0, 1, ...

    @classmethod
    def search(cls, systems: Systems, cutoff: float, skin: float) -> _Built:
        copy = replace(systems, **{f.name: getattr(systems, f.name).detach().clone() for f in fields(systems)})
        i, j, shift = _search(copy, cutoff + skin)
        n, e = copy.n_atoms, len(i)
        count = torch.bincount(i, minlength=n)
        atoms = torch.arange(n, device=i.device)
        translation = _translation(shift, copy.cell[copy.system[i]] if copy.n_systems > 1 else copy.cell)
        none = shift.new_zeros(n, 3)
        return cls(
            systems=copy,
            target=i.repeat(3, 1),
            source=j.repeat(3, 1),
            offset=translation.T.contiguous(),
            row=torch.cat([count.new_zeros(1), count.cumsum(0)]),
            index=torch.cat([j, atoms]),
            shift=torch.cat([shift, none]),
            translation=torch.cat([translation, none - none.new_tensor([2.0 * cutoff, 0.0, 0.0])]),
            padding=e + atoms,
            slots=torch.arange(int(count.max()) if n else 0, device=i.device),
        )

    def serves(self, systems: Systems, skin: float) -> bool:
        """Whether every pair now within the cutoff was found: same atoms, cell and axes, and no atom moved more than skin/2."""
        mine = self.systems
        if mine.positions.device != systems.positions.device or mine.positions.shape != systems.positions.shape:
            return False
        if not all(torch.equal(getattr(mine, name), getattr(systems, name)) for name in ("cell", "pbc", "numbers", "system")):
            return False
        moved = float((systems.positions.detach() - mine.positions).square().sum(1).max())
        return moved <= (0.5 * skin) ** 2  # false for NaN: the search then says which position it is

    def within(self, systems: Systems, cutoff: float) -> Neighbors:
        p = systems.positions.detach().T.contiguous()
        d = p.gather(1, self.target).sub_(p.gather(1, self.source).add_(self.offset))
        d.mul_(d)
        near = d[0].add_(d[1]).add_(d[2]) < cutoff * cutoff
        chosen = near.nonzero()[:, 0]
        before = torch.cat([self.row.new_zeros(1), near.cumsum(0)])[self.row]  # chosen pairs before each row
        count = before.diff()
        n_slots = int(count.max())
        mask = self.slots[:n_slots] < count[:, None]
        entry = self.padding[:, None].repeat(1, n_slots).masked_scatter_(mask, chosen)  # both run row by row, slot by slot
        flat = entry.view(-1)
        index = self.index.index_select(0, flat).view_as(entry)
        shift = self.shift.index_select(0, flat).view(*entry.shape, 3)
        offset = self.translation.index_select(0, flat).view(*entry.shape, 3)
        return Neighbors(index, shift, mask, cutoff, _Offset(offset, systems.cell, systems.cell._version))
