"""Neighbour lists: which atoms, and which of their periodic images, lie within the cutoff of each atom.

Row i holds sources j with whole-numbered translations n, where the pair vector

    d = (r_i - r_j) - n @ cell

is shorter than the cutoff (strictly; see :mod:`omnicalc.pair_search`). Every list is in one canonical order,
(i, j, n_a, n_b, n_c), whoever made it: a list kept with a skin equals a fresh search bit for bit, slot for
slot, which is what makes a restarted run repeat the uninterrupted one exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.pair_search import (
    MOLECULE,
    canonical_order,
    search_molecules,
    search_pairs,
    translation,
    translation_along,
)
from omnicalc.pair_search_device import bins_of, search_on_device
from omnicalc.pair_search_device import canonical_order as canonical_order_on_device

if TYPE_CHECKING:
    from omnicalc.systems import Systems

DEFAULT_SKIN = 1.0  # Å; see NeighborList
FIXED = ("cell", "pbc", "numbers", "system")  # of systems: as long as these are as they were, a list may serve on
MAX_SKIN = 10.0  # Å; the list grows with the third power of cutoff + skin and fills the memory


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Dense directed neighbours: row i holds every source within ``cutoff`` of target i, then padding.

    N atoms, K slots (the largest number of neighbours of any atom; 0 when no atom has one).
    """

    index: Tensor  # (N, K) int64, source atom j; padding slots hold i itself
    shift: Tensor  # (N, K, 3) float64, whole-numbered image translation n; zeros in padding
    mask: Tensor  # (N, K) bool, False = padding
    cutoff: float  # Å
    known: _Offset | None = field(default=None, repr=False)  # n @ cell, when the maker of the list has it

    @property
    def n_slots(self) -> int:
        return self.index.shape[1]

    def vectors(self, positions: Tensor, cell: Tensor, system: Tensor, strain: Tensor | None = None) -> Tensor:
        """Pair vectors d = (r_i - r_j) - n @ cell, (N, K, 3) float64, Å, differentiable in all floats.

        ``positions`` (N, 3) float64; ``cell`` (S, 3, 3) float64; ``system`` (N,) int64, the structure of
        each atom. ``strain`` (S, 3, 3) float64: if given, d becomes d @ (1 + strain), so that the derivative
        of the energy by it, at zero, is volume times stress.

        Padding slots hold (2 cutoff, 0, 0): finite, longer than the cutoff, and independent of
        every argument. Passing the very ``systems.cell`` that a :class:`NeighborList` was updated with saves
        the product n @ cell.
        """
        n_atoms, n_slots = self.index.shape
        known = self.known
        offset = known.value if known is not None and known.holds_for(cell) else self._offset(cell, system)
        # index_select, not indexing: its backward is one index_add, several times faster
        source = positions.index_select(0, self.index.reshape(-1)).view(n_atoms, n_slots, 3)
        d = positions[:, None] - source - offset
        if strain is None:
            return d
        return d + torch.where(self.mask[..., None], _apply(d, strain, system), 0.0)

    def _offset(self, cell: Tensor, system: Tensor) -> Tensor:
        """n @ cell (N, K, 3); in padding, where source and target are the same, minus the padding vector."""
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
    """n @ cell (N, K, 3) with the very tensor it was made from: known by identity, stale once written to."""

    value: Tensor
    cell: Tensor
    version: int | None

    @classmethod
    def of(cls, value: Tensor, cell: Tensor) -> _Offset:
        # inference tensors do not count the writes to them
        return cls(value, cell, None if cell.is_inference() else cell._version)

    def holds_for(self, cell: Tensor) -> bool:
        if cell is not self.cell or self.version is None or cell.requires_grad:
            return False
        return cell._version == self.version


def _apply(rows: Tensor, matrix: Tensor, system: Tensor) -> Tensor:
    """rows (N, K, 3) times the (3, 3) matrix of each row's structure; ``matrix`` (S, 3, 3)."""
    return rows @ (matrix[0] if matrix.shape[0] == 1 else matrix.index_select(0, system))


def neighbors(systems: Systems, cutoff: float) -> Neighbors:
    """All neighbours within ``cutoff`` (Å) by one exact search.

    Raises :class:`InputError` for a cutoff that is not positive and for positions that are not finite.
    """
    cutoff = _positive("cutoff", cutoff)
    i, j, shift = flat_pairs(systems, cutoff)
    return dense_rows(i, j, shift, systems.n_atoms, cutoff)


def _positive(name: str, value: float, or_zero: bool = False) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} {value!r} given; a length in Å is needed") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
        allowed = "0 or more" if or_zero else "above 0"
        raise InputError(f"{name} {value} Å given; a finite number {allowed} is needed")
    return value


def flat_pairs(systems: Systems, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Flat pairs of a batch, on its device: i (E,), j (E,), shift (E, 3) float64, in canonical order."""
    if systems.n_systems == 1 and systems.positions.is_cuda and bool(systems.positions.isfinite().all()):
        cell, bins = systems.cell[0].detach(), bins_of(systems.cell[0].detach(), systems.pbc[0], cutoff)
        if bins is not None:
            return search_on_device(systems.positions.detach(), cell, bins, cutoff)
    positions, cell, pbc, system = (
        t.detach().cpu().numpy() for t in (systems.positions, systems.cell, systems.pbc, systems.system)
    )
    counts = np.bincount(system, minlength=len(cell))
    if not pbc.any() and counts.max(initial=0) <= MOLECULE:
        columns = search_molecules(positions, counts, cutoff)
    else:
        found, first = [], 0
        for s, count in enumerate(counts.tolist()):
            i, j, shift = search_pairs(positions[first : first + count], cell[s], pbc[s], cutoff)
            found.append((i + first, j + first, shift))
            first += count
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    i, j, shift = (torch.from_numpy(column).to(systems.positions.device) for column in columns)
    return i, j, shift


def dense_rows(i: Tensor, j: Tensor, shift: Tensor, n_atoms: int, cutoff: float) -> Neighbors:
    """Rows of equal length from flat pairs (E,), (E,), (E, 3) sorted by i."""
    atoms = torch.arange(n_atoms, device=i.device)
    count = torch.bincount(i, minlength=n_atoms)
    n_slots = int(count.max()) if n_atoms else 0
    mask = torch.arange(n_slots, device=i.device) < count[:, None]
    index = atoms[:, None].repeat(1, n_slots).masked_scatter_(mask, j)  # both run row by row, slot by slot
    rows = shift.new_zeros(n_atoms, n_slots, 3)
    rows[mask] = shift
    return Neighbors(index, rows, mask, cutoff)


@dataclass(frozen=True, eq=False)
class FlatPairs:
    """All pairs within cutoff + skin of some positions, target by target: numpy arrays for the native kernel."""

    row: np.ndarray  # (N + 1,) int64: the pairs of target i are row[i] .. row[i + 1] - 1
    source: np.ndarray  # (E,) int32
    reverse: np.ndarray  # (E,) int32: where the same two atoms stand with target and source exchanged
    offset: np.ndarray  # (E, 3) float64, n @ cell, Å


@dataclass(frozen=True, eq=False)
class SkinRows:
    """The same pairs as dense rows of slots, tensors on the device of the structure: for the kernels of a GPU."""

    source: Tensor  # (N, slots) int32, -1 in padding
    reverse: Tensor  # (N, slots) int32: slot, in the source's row, of the pair with target and source exchanged
    offset: Tensor  # (N, slots, 3) float64, n @ cell, Å


class NeighborList:
    """A list kept between calls: searched at cutoff + skin, then filtered by true distance while it may be.

    It may be until an atom has moved more than skin/2 from where the search was made, or cell, periodic axes
    or atoms change. :meth:`update` returns exactly what :func:`neighbors` would, in the same order, whatever
    happened before; only its cost depends on the stored list. ``rebuilds`` counts the searches.

    The default skin of 1 Å is about the cheapest for liquid water on a CPU (64 and 216 molecules, cutoff
    4.5 Å, hydrogens moving 0.01 to 0.03 Å per step): thinner ones search too often, thicker ones filter too
    many pairs.
    """

    def __init__(self, cutoff: float, skin: float = DEFAULT_SKIN):
        self.cutoff = _positive("cutoff", cutoff)
        self.skin = _positive("skin", skin, or_zero=True)
        if self.skin > MAX_SKIN:
            usual = f"at most {MAX_SKIN:g} Å is of any use, {DEFAULT_SKIN:g} is usual"
            raise InputError(f"skin {self.skin:g} Å given; {usual}")
        self.rebuilds = 0
        self._built: _Built | None = None
        self._moved: list[Tensor] | None = None  # where displacements go that are to be looked at later

    def __getstate__(self) -> dict:  # what was found is found again where a copy needs it, and is not worth carrying
        return vars(self) | {"_built": None, "_moved": None}

    @property
    def reach(self) -> float:
        """How far an atom may move, Å, before the stored list no longer serves."""
        return 0.5 * self.skin

    @contextmanager
    def trusted(self) -> Iterator[list[Tensor]]:
        """Inside, the stored list is used however far atoms have moved, so that no call waits for an answer.

        Yields a list that gets the square of the largest displacement, (), Å^2, of every call. Whoever asked has to
        look at them afterwards: what was computed with one not within :attr:`reach` squared, or NaN, lacks pairs.
        """
        self._moved = []
        try:
            yield self._moved
        finally:
            self._moved = None

    @property
    def reference(self) -> Tensor | None:
        """(N, 3) positions, Å, at which the stored list was searched; None before the first search."""
        return None if self._built is None else self._built.systems.positions

    @property
    def built_at(self) -> Systems | None:
        """The structure at which the stored list was searched; None before the first search."""
        return None if self._built is None else self._built.systems

    def rebuild_at(self, systems: Systems) -> None:
        """Search at these positions now, as a restarted run does with the reference positions it saved."""
        self._built = _Built.search(systems, self.cutoff, self.skin)
        self.rebuilds += 1

    def update(self, systems: Systems) -> Neighbors:
        """Exactly the pairs within the cutoff now; :class:`InputError` for positions that are not finite."""
        self._refresh(systems)
        return self._built.dense.within(systems)

    def pairs_with_skin(self, systems: Systems) -> FlatPairs:
        """At least the pairs within the cutoff now, in an order that depends on the stored list; the caller filters."""
        self._refresh(systems)
        return self._built.flat_pairs

    def rows_with_skin(self, systems: Systems) -> SkinRows:
        """As :meth:`pairs_with_skin`, as dense rows; the same object until the list is searched again."""
        self._refresh(systems)
        return self._built.skin_rows

    def _refresh(self, systems: Systems) -> None:
        if self._built is None or not self._built.is_of(systems):
            self.rebuild_at(systems)
        moved = self._built.moved(systems)
        if self._moved is not None:
            self._moved.append(moved)
        elif not float(moved) <= self.reach**2:  # so for NaN: the search then says which position it is
            self.rebuild_at(systems)


class Given:
    """The caller's own tensors, and how often each had been written to: comparing numbers makes a GPU's host wait."""

    def __init__(self, systems: Systems):
        tensors = {name: getattr(systems, name) for name in FIXED}
        self._known = {name: (t, None if t.is_inference() else t._version) for name, t in tensors.items()}

    def has(self, name: str, systems: Systems) -> bool:
        """Whether a tensor of ``systems`` is the very one that was given, as it was."""
        tensor, version = self._known[name]
        return getattr(systems, name) is tensor and version is not None and tensor._version == version


@dataclass(frozen=True, eq=False)
class _Built:
    """Flat pairs (E,) found at ``systems`` with cutoff + skin, and in what forms they are asked for."""

    systems: Systems  # a copy, so that in-place changes by the caller are noticed
    given: Given
    cutoff: float  # without the skin
    i: Tensor  # (E,) int64
    j: Tensor  # (E,) int64
    shift: Tensor  # (E, 3) float64: n
    offset: Tensor  # (E, 3) float64, Å: n @ cell
    row: Tensor  # (N + 1,) int64: the pairs of atom i are row[i] .. row[i + 1] - 1

    @classmethod
    def search(cls, systems: Systems, cutoff: float, skin: float) -> _Built:
        copy = replace(systems, **{f.name: getattr(systems, f.name).detach().clone() for f in fields(systems)})
        i, j, shift = flat_pairs(copy, cutoff + skin)
        count = torch.bincount(i, minlength=copy.n_atoms)
        return cls(
            systems=copy,
            given=Given(systems),
            cutoff=cutoff,
            i=i,
            j=j,
            shift=shift,
            offset=_translation(shift, copy.cell if copy.n_systems == 1 else copy.cell[copy.system[i]]),
            row=torch.cat([count.new_zeros(1), count.cumsum(0)]),
        )

    @cached_property
    def dense(self) -> _Dense:
        return _Dense.of(self.i, self.j, self.shift, self.offset, self.row, self.cutoff)

    @cached_property
    def flat_pairs(self) -> FlatPairs:
        i, j = self.i.numpy(), self.j.numpy()
        reverse = np.empty(len(i), dtype=np.int32)
        # the reversed pairs are the same pairs, |d| being the same to the last bit: sorted, they stand in this order
        shift = self.shift.numpy().T.astype(np.int64)
        reverse[canonical_order(j, i, -shift, len(self.row) - 1)] = np.arange(len(i), dtype=np.int32)
        # copies: a tensor's memory may move, as it does when torch shares it with another process
        return FlatPairs(self.row.numpy().copy(), j.astype(np.int32), reverse, self.offset.numpy().copy())

    @cached_property
    def skin_rows(self) -> SkinRows:
        i, j = self.i, self.j
        slot = torch.arange(len(i), device=i.device) - self.row[i]
        n_atoms, n_slots = len(self.row) - 1, _longest(self.row)
        back = canonical_order_on_device(j, i, -self.shift, n_atoms)  # as in flat_pairs
        reverse = torch.empty_like(slot)
        reverse[back] = slot
        source, slots = (torch.full((n_atoms, n_slots), -1, dtype=torch.int32, device=i.device) for _ in range(2))
        source[i, slot], slots[i, slot] = j.int(), reverse.int()
        offset = self.offset.new_zeros(n_atoms, n_slots, 3)
        offset[i, slot] = self.offset
        return SkinRows(source, slots, offset)

    def is_of(self, systems: Systems) -> bool:
        """Whether all but the positions is as it was."""
        mine = self.systems
        if mine.device != systems.device or mine.positions.shape != systems.positions.shape:
            return False
        return all(
            self.given.has(name, systems) or torch.equal(getattr(mine, name), getattr(systems, name)) for name in FIXED
        )

    def moved(self, systems: Systems) -> Tensor:
        """The square of the largest displacement, (), Å^2; 0 without atoms."""
        if not systems.n_atoms:
            return systems.positions.new_zeros(())
        return (systems.positions.detach() - self.systems.positions).square().sum(1).max()


@dataclass(frozen=True, eq=False)
class _Dense:
    """What dense rows are taken from at every step, laid out for speed.

    Tables that rows are taken from have N more entries after the E pairs: the padding of each atom.
    """

    target: Tensor  # (3, E) int64: i, once per coordinate, because gather is the fastest selection there is
    source: Tensor  # (3, E) int64: j
    offset: Tensor  # (3, E) float64, n @ cell
    row: Tensor  # (N + 1,) int64
    index: Tensor  # (E + N,) int64
    shift: Tensor  # (E + N, 3) float64
    translation: Tensor  # (E + N, 3) float64, Å
    padding: Tensor  # (N, 1) int64: E + i
    slots: Tensor  # (longest row,) int64: 0, 1, ...
    cutoff: float  # Å, without the skin

    @classmethod
    def of(cls, i: Tensor, j: Tensor, shift: Tensor, offset: Tensor, row: Tensor, cutoff: float) -> _Dense:
        atoms = torch.arange(len(row) - 1, device=i.device)
        none = shift.new_zeros(len(atoms), 3)
        return cls(
            target=i.repeat(3, 1),
            source=j.repeat(3, 1),
            offset=offset.T.contiguous(),
            row=row,
            index=torch.cat([j, atoms]),
            shift=torch.cat([shift, none]),
            translation=torch.cat([offset, none - none.new_tensor([2.0 * cutoff, 0.0, 0.0])]),
            padding=(len(i) + atoms)[:, None],
            slots=torch.arange(_longest(row), device=i.device),
            cutoff=cutoff,
        )

    def within(self, systems: Systems) -> Neighbors:
        """The pairs shorter than the cutoff at the positions of ``systems``, as dense rows."""
        p = systems.positions.detach().T.contiguous()
        d = p.gather(1, self.target).sub_(p.gather(1, self.source)).sub_(self.offset)
        d.mul_(d)
        near = d[0].add_(d[1]).add_(d[2]) < self.cutoff * self.cutoff
        chosen = near.nonzero()[:, 0]
        before = torch.cat([self.row.new_zeros(1), near.cumsum(0)])[self.row]  # chosen ones before each row
        count = before.diff()
        n_slots = int(count.max()) if len(count) else 0
        mask = self.slots[:n_slots] < count[:, None]
        entry = self.padding.repeat(1, n_slots).masked_scatter_(mask, chosen)  # row by row, slot by slot
        flat, shape = entry.view(-1), (*entry.shape, 3)
        return Neighbors(
            index=self.index.index_select(0, flat).view_as(entry),
            shift=self.shift.index_select(0, flat).view(shape),
            mask=mask,
            cutoff=self.cutoff,
            known=_Offset.of(self.translation.index_select(0, flat).view(shape), systems.cell),
        )


def _translation(shift: Tensor, cell: Tensor) -> Tensor:
    """:func:`translation`, on a CPU by columns in numpy.

    Torch would wake threads for it, which then spin for milliseconds where those of the native kernel should run.
    """
    if shift.device.type != "cpu":
        return translation(shift, cell)
    n = np.ascontiguousarray(shift.numpy().T)
    coordinates = [translation_along(n, column) for column in cell.numpy().transpose(2, 1, 0)]
    return torch.from_numpy(np.stack(coordinates, 1))


def _longest(row: Tensor) -> int:
    return int(row.diff().max()) if len(row) > 1 else 0


def neighbors_reference(systems: Systems, cutoff: float) -> Neighbors:
    """The same list by brute force over images: slow, simple, independent of the search library. For tests.

    Along periodic axis k with dual vector b_k (a_m · b_k = 1 if m = k else 0, over the periodic rows a_m of
    the cell), the image of j nearest to i has a shift near f_k = (r_i - r_j) · b_k, and |d| < cutoff implies
    |n_k - f_k| < cutoff |b_k|. So every pair is among the shifts round(f) + m with
    |m_k| <= cutoff |b_k| + 1/2, for any cell however thin or skewed.
    """
    cutoff = _positive("cutoff", cutoff)
    found = []
    for s in range(systems.n_systems):
        atoms = (systems.system == s).nonzero()[:, 0]
        positions, cell = systems.positions[atoms].detach(), systems.cell[s].detach()
        found += _brute_force(positions, cell, systems.pbc[s].nonzero()[:, 0], cutoff, atoms)
    found.sort()
    i = torch.tensor([pair[0] for pair in found], dtype=torch.int64, device=systems.device)
    j = torch.tensor([pair[1] for pair in found], dtype=torch.int64, device=systems.device)
    shift = torch.tensor([pair[2:] for pair in found], dtype=torch.float64, device=systems.device)
    return dense_rows(i, j, shift.reshape(-1, 3), systems.n_atoms, cutoff)


def _brute_force(positions: Tensor, cell: Tensor, periodic: Tensor, cutoff: float, atoms: Tensor) -> list:
    """Pairs (i, j, n_a, n_b, n_c) of one structure whose A atoms are numbered ``atoms`` in the batch."""
    lattice = cell[periodic]  # (P, 3)
    dual = torch.linalg.pinv(lattice).T if len(periodic) else lattice
    reach = [math.floor(cutoff * float(b.norm()) + 0.5) for b in dual]
    images = list(itertools.product(*(range(-r, r + 1) for r in reach)))
    images = torch.tensor(images, dtype=torch.float64, device=cell.device).reshape(len(images), len(periodic))
    found = []
    for a in range(len(atoms)):
        n = cell.new_zeros(len(atoms), len(images), 3)
        n[..., periodic] = ((positions[a] - positions) @ dual.T).round()[:, None] + images
        d = (positions[a] - positions)[:, None] - translation(n.reshape(-1, 3), cell[None]).view_as(n)
        near = d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2 < cutoff * cutoff
        near[a] &= n[a].any(dim=1)
        b, m = near.nonzero(as_tuple=True)
        found += [(int(atoms[a]), j, *n) for j, n in zip(atoms[b].tolist(), n[b, m].tolist(), strict=True)]
    return found
