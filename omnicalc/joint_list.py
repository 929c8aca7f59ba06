"""Neighbour lists of several structures as one, each kept on its own.

A structure's pairs are then those it would have alone, whatever the others do, so a batch repeats single runs: with the
native kernel bit for bit, with plain torch but for the rounding of sums over rows of another length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from omnicalc.neighbor_list import FIXED, FlatPairs, Given, NeighborList, SkinRows
from omnicalc.neighbors import Neighbors
from omnicalc.systems import Systems, split

_SURE = 1.0 - 1e-9  # of the square of what atoms may move: within it every list finds the same, whatever the rounding


class JointList:
    """Stands where a :class:`NeighborList` does, for S structures with a list each."""

    def __init__(self, lists: Sequence[NeighborList]):
        """``lists``: one of each structure, in their order, all with the same cutoff."""
        self.lists = list(lists)
        self.cutoff = min((each.cutoff for each in self.lists), default=0.0)
        self._pairs = _Joined(self.lists, NeighborList.pairs_with_skin, _join)
        self._rows = _Joined(self.lists, NeighborList.rows_with_skin, _join_rows)

    @property
    def reference(self) -> torch.Tensor | None:
        """(N, 3) positions, Å, at which the lists were searched; None before the first search."""
        found = [each.reference for each in self.lists]
        return None if any(each is None for each in found) else torch.cat(found)

    def rebuild_at(self, systems: Systems) -> None:
        """Search every list at these positions now."""
        for each, part in zip(self.lists, split(systems), strict=True):
            each.rebuild_at(part)

    def update(self, systems: Systems) -> Neighbors:
        """As :meth:`NeighborList.update`; rows are as long as the longest of any structure."""
        parts = split(systems)
        found = [each.update(part) for each, part in zip(self.lists, parts, strict=True)]
        n_slots = max(part.n_slots for part in found)
        index, shift, mask = [], [], []
        for part, first in zip(found, _starts(systems), strict=True):
            n, more = len(part.index), n_slots - part.n_slots
            own = torch.arange(n, device=part.index.device)[:, None].expand(n, more)
            index.append(torch.cat([part.index, own], 1) + first)
            shift.append(torch.cat([part.shift, part.shift.new_zeros(n, more, 3)], 1))
            mask.append(torch.cat([part.mask, part.mask.new_zeros(n, more)], 1))
        return Neighbors(torch.cat(index), torch.cat(shift), torch.cat(mask), found[0].cutoff)

    def pairs_with_skin(self, systems: Systems) -> FlatPairs:
        """As :meth:`NeighborList.pairs_with_skin`; joined anew only when a structure was searched again."""
        return self._pairs(systems)

    def rows_with_skin(self, systems: Systems) -> SkinRows:
        """As :meth:`NeighborList.rows_with_skin`; joined anew only when a structure was searched again."""
        return self._rows(systems)


class _Joined:
    """What the parts of several structures make together, kept as long as every part is the same object."""

    def __init__(self, lists: Sequence[NeighborList], ask: Callable, join: Callable):
        self._lists, self._ask, self._join = lists, ask, join
        self._parts, self._whole = [None] * len(lists), None
        self._given: Given | None = None
        self._reach = min((each.reach for each in lists), default=0.0)

    def __call__(self, systems: Systems):
        if asked := self._to_ask(systems):
            parts, structures = list(self._parts), split(systems)
            for k in asked:
                parts[k] = self._ask(self._lists[k], structures[k])
            if any(a is not b for a, b in zip(parts, self._parts, strict=True)):
                self._parts, self._whole = parts, self._join(parts)
            self._given, self._built = Given(systems), [each.built_at for each in self._lists]
            self._reference = torch.cat([built.positions for built in self._built])
        return self._whole

    def _to_ask(self, systems: Systems) -> Sequence[int]:
        """Structures whose lists may have changed, found by one look at all atoms; the others have what they had."""
        if self._given is None or not all(self._given.has(name, systems) for name in FIXED):
            return range(len(self._lists))
        if any(each.built_at is not built for each, built in zip(self._lists, self._built, strict=True)):
            return range(len(self._lists))
        moved = (systems.positions.detach() - self._reference).square().sum(1)
        far = ~(moved <= _SURE * self._reach**2)  # so for NaN
        return sorted(set(systems.system[far].tolist()))


def _starts(systems: Systems) -> list[int]:
    """First atom of each structure."""
    return [0, *itertools.accumulate(systems.counts.tolist()[:-1])]


def _join_rows(parts: Sequence[SkinRows]) -> SkinRows:
    firsts = itertools.accumulate((len(part.source) for part in parts), initial=0)
    longest = max(part.source.shape[1] for part in parts)
    sources, reverses, offsets = [], [], []
    for part, first in zip(parts, firsts, strict=False):
        more = (0, longest - part.source.shape[1])
        sources.append(F.pad(torch.where(part.source < 0, part.source, part.source + first), more, value=-1))
        reverses.append(F.pad(part.reverse, more))
        offsets.append(F.pad(part.offset, (0, 0, *more)))
    return SkinRows(torch.cat(sources), torch.cat(reverses), torch.cat(offsets))


def _join(parts: list[FlatPairs]) -> FlatPairs:
    atoms = [0, *itertools.accumulate(len(part.row) - 1 for part in parts)]
    pairs = [0, *itertools.accumulate(len(part.source) for part in parts)]
    rows = [part.row[:-1] + first for part, first in zip(parts, pairs, strict=False)]
    sources = [part.source + np.int32(first) for part, first in zip(parts, atoms, strict=False)]
    reverses = [part.reverse + np.int32(first) for part, first in zip(parts, pairs, strict=False)]
    return FlatPairs(
        np.concatenate([*rows, [pairs[-1]]]).astype(np.int64),
        np.concatenate(sources),
        np.concatenate(reverses),
        np.concatenate([part.offset for part in parts]),
    )
