"""A neighbour list that is kept between calls, and in what forms its pairs are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.neighbors import Neighbors, Offset, flat_pairs, positive_length
from omnicalc.pair_search import canonical_order, translation, translation_along
from omnicalc.pair_search_device import canonical_order as canonical_order_on_device

if TYPE_CHECKING:
    from omnicalc.systems import Systems

DEFAULT_SKIN = 1.0  # Å; see NeighborList
FIXED = ("cell", "pbc", "numbers", "system")  # of systems: as long as these are as they were, a list may serve on
MAX_SKIN = 10.0  # Å; the list grows with the third power of cutoff + skin and fills the memory


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
    or atoms change. :meth:`update` returns exactly what :func:`omnicalc.neighbors.neighbors` would, in the same
    order, whatever happened before; only its cost depends on the stored list. ``rebuilds`` counts the searches.

    The default skin of 1 Å is about the cheapest for liquid water on a CPU (64 and 216 molecules, cutoff
    4.5 Å, hydrogens moving 0.01 to 0.03 Å per step): thinner ones search too often, thicker ones filter too
    many pairs.
    """

    def __init__(self, cutoff: float, skin: float = DEFAULT_SKIN):
        self.cutoff = positive_length("cutoff", cutoff)
        self.skin = positive_length("skin", skin, or_zero=True)
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
            known=Offset.of(self.translation.index_select(0, flat).view(shape), systems.cell),
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
