"""Whether the bonds that a run started with still hold."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from ase.data import covalent_radii

from omnicalc.bonds import bonds
from omnicalc.md.molecules import Molecules, molecules_of

if TYPE_CHECKING:
    from ase import Atoms
    from torch import Tensor


class Opened(NamedTuple):
    """The bond that is furthest beyond what it may have."""

    i: int
    j: int
    length: float  # Å, now
    allowed: float  # Å
    others: int  # number of bonds that are open too


class BondWatch:
    """Bonds of ``atoms`` by distance, as the topology has them: none between ions, metals or molecules.

    A bond is open when it is longer than ``limit`` times its length at the start or times the sum of covalent radii,
    whichever is more: a start that was caught in a vibration, or a weak long bond, is allowed for. A hydrogen may go
    from one atom of its molecule to another, as between the oxygens of acetylacetone, which then has not come apart.
    """

    def __init__(self, atoms: Atoms, limit: float):
        self._atoms, self._limit = atoms, limit
        i, j, images = bonds(atoms)
        once = i < j
        i, j, images = i[once], j[once], images[once]
        start = np.linalg.norm(atoms.positions[i] - atoms.positions[j] - images @ atoms.cell.array, axis=1)
        allowed = limit * np.maximum(start, covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])
        self._i, self._j, self._allowed, self._images = (torch.as_tensor(x) for x in (i, j, allowed, images))
        self._across = bool(images.any())

    def __len__(self) -> int:
        return len(self._i)

    def excess(self, positions: Tensor, cell: Tensor) -> Tensor:
        """(B,) Å, by how much each bond is longer than it may be at ``positions`` (N, 3) float64, Å, never wrapped, in
        ``cell`` (3, 3); nothing waits for it.
        """
        if self._i.device != positions.device:
            self._i, self._j, self._allowed, self._images = (
                x.to(positions.device) for x in (self._i, self._j, self._allowed, self._images)
            )
        bond = positions.index_select(0, self._i) - positions.index_select(0, self._j)
        if self._across:
            bond = bond - self._images @ cell
        return torch.linalg.vector_norm(bond, dim=1) - self._allowed

    def opened(self, positions: Tensor, cell: Tensor) -> Opened | None:
        """What is open at these positions, as :meth:`excess` takes them; None: nothing."""
        if not len(self):
            return None
        excess = self.excess(positions, cell)
        if float(excess.max()) <= 0:
            return None
        where, frame = positions.cpu().numpy(), cell.cpu().numpy()
        mine = excess.cpu().numpy()
        found = [k for k in np.flatnonzero(~(mine <= 0)).tolist() if not self._moved_within(k, where, frame)]
        if not found:
            return None
        k = max(found, key=mine.__getitem__)
        i, j = int(self._i[k]), int(self._j[k])
        return Opened(i, j, float(mine[k] + self._allowed[k]), float(self._allowed[k]), len(found) - 1)

    def _moved_within(self, k: int, positions: np.ndarray, cell: np.ndarray) -> bool:
        """Whether bond ``k`` is that of a hydrogen which another atom of its molecule holds now."""
        numbers, (molecule, images, *_) = self._atoms.numbers, self._molecules
        for h in (int(self._i[k]), int(self._j[k])):
            if numbers[h] != 1:
                continue
            others = np.flatnonzero((molecule == molecule[h]) & (numbers != 1))
            apart = positions[others] - positions[h] + (images[others] - images[h]) @ cell
            held = self._limit * (covalent_radii[1] + covalent_radii[numbers[others]])
            if (np.linalg.norm(apart, axis=1) <= held).any():
                return True
        return False

    @cached_property
    def _molecules(self) -> Molecules:
        return molecules_of(self._atoms)
