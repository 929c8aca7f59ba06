"""Neighbour lists: which atoms, and which of their periodic images, lie within the cutoff of each atom.

Row i holds sources j with whole-numbered translations n, where the pair vector

    d = (r_i - r_j) - n @ cell

is shorter than the cutoff (strictly; see :mod:`omnicalc.pair_search`). Every list is in one canonical order,
(i, j, n_a, n_b, n_c), whoever made it: a list kept with a skin equals a fresh search bit for bit, slot for
slot, which is what makes a restarted run repeat the uninterrupted one exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.pair_search import MOLECULE, search_molecules, search_pairs
from omnicalc.pair_search_device import bins_of, search_on_device

if TYPE_CHECKING:
    from omnicalc.systems import Systems


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Dense directed neighbours: row i holds every source within ``cutoff`` of target i, then padding.

    N atoms, K slots (the largest number of neighbours of any atom; 0 when no atom has one).
    """

    index: Tensor  # (N, K) int64, source atom j; padding slots hold i itself
    shift: Tensor  # (N, K, 3) float64, whole-numbered image translation n; zeros in padding
    mask: Tensor  # (N, K) bool, False = padding
    cutoff: float  # Å
    known: Offset | None = field(default=None, repr=False)  # n @ cell, when the maker of the list has it

    @property
    def n_slots(self) -> int:
        return self.index.shape[1]

    def vectors(self, positions: Tensor, cell: Tensor, system: Tensor, strain: Tensor | None = None) -> Tensor:
        """Pair vectors d = (r_i - r_j) - n @ cell, (N, K, 3) float64, Å, differentiable in all floats.

        ``positions`` (N, 3) float64; ``cell`` (S, 3, 3) float64; ``system`` (N,) int64, the structure of
        each atom. ``strain`` (S, 3, 3) float64: if given, d becomes d @ (1 + strain), so that the derivative
        of the energy by it, at zero, is volume times stress.

        Padding slots hold (2 cutoff, 0, 0): finite, longer than the cutoff, and independent of
        every argument. Passing the very ``systems.cell`` that a kept list was updated with saves
        the product n @ cell.
        """
        n_atoms, n_slots = self.index.shape
        known = self.known
        offset = known.value if known is not None and known.holds_for(cell) else self.offsets(cell, system)
        # index_select, not indexing: its backward is one index_add, several times faster
        source = positions.index_select(0, self.index.reshape(-1)).view(n_atoms, n_slots, 3)
        d = positions[:, None] - source - offset
        if strain is None:
            return d
        return d + torch.where(self.mask[..., None], _apply(d, strain, system), 0.0)

    def offsets(self, cell: Tensor, system: Tensor) -> Tensor:
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
class Offset:
    """n @ cell (N, K, 3) with the very tensor it was made from: known by identity, stale once written to."""

    value: Tensor
    cell: Tensor
    version: int | None

    @classmethod
    def of(cls, value: Tensor, cell: Tensor) -> Offset:
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
    cutoff = positive_length("cutoff", cutoff)
    i, j, shift = flat_pairs(systems, cutoff)
    return dense_rows(i, j, shift, systems.n_atoms, cutoff)


def positive_length(name: str, value: float, or_zero: bool = False) -> float:
    """The value, in Å. Raises :class:`InputError` for anything else, under this name."""
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
