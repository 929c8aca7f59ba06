"""Bonds by distance, and the molecules they make: one rule for simulation, analysis and training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnicalc.pair_search import search_pairs

if TYPE_CHECKING:
    from ase import Atoms

# H B C N O F Si P S Cl Ge As Se Br Sb Te I: elements that form molecules; all others stand alone, as ions do.
_BONDING = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 51, 52, 53)
# Bonds are up to this times the sum of covalent radii (ase.data: Cordero et al., Dalton Trans. 2008, 2832):
# O-H up to 1.21 Å, above the bonds of quantum nuclei, below hydrogen bonds.
STRETCH = 1.25


def reach(numbers: np.ndarray) -> np.ndarray:
    """Of each atom (N,), Å: two atoms are bonded when closer than the sum of theirs, which is 0 for those without."""
    from ase.data import covalent_radii

    return np.where(np.isin(numbers, _BONDING), STRETCH * covalent_radii[numbers], 0.0)


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonded pairs of a structure, each in both directions: i (B,), j (B,) and the whole-numbered translation (B, 3)
    whose image of j is the one near i. Sorted by i, then j.
    """
    own = reach(atoms.numbers)
    bonding = np.flatnonzero(own)
    if not bonding.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    own, positions = own[bonding], atoms.positions[bonding]
    i, j, shift = search_pairs(positions, atoms.cell.array, atoms.pbc, 2 * float(own.max()))
    distance = np.linalg.norm(positions[i] - positions[j] - shift @ atoms.cell.array, axis=1)
    bonded = (distance < own[i] + own[j]) & (i != j)
    return bonding[i[bonded]], bonding[j[bonded]], shift[bonded]


def molecule_numbers(n_atoms: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Molecule of every atom (N,) int64, numbered in the order of first atoms: sets of atoms that pairs i, j (B,)
    connect.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(n_atoms, n_atoms))
    labels = connected_components(graph, directed=False)[1]
    first, inverse = np.unique(labels, return_index=True, return_inverse=True)[1:]
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
