"""What stands around each atom: how many atoms of each element, and how near the nearest of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from omnicalc.pair_search import MOLECULE, search_molecules, search_pairs

BONDED = 1.3  # times the sum of covalent radii: within this two atoms count as bonded, or an ion as coordinated
REACH = 4.5  # Å, how far the nearest is looked for, further only where two may be bonded
SHELL = 3.5  # Å, radius of the shell in which atoms other than hydrogen are counted


@dataclass(frozen=True)
class Surroundings:
    """Of N atoms, by the E elements ``kinds`` of their neighbours."""

    rows: np.ndarray  # (N,) int64: which of the kinds an atom is
    bonds: np.ndarray  # (N, E) int64, neighbours within the bonding distance
    shell: np.ndarray  # (N, E) int64, neighbours within SHELL, neither atom being hydrogen
    closest: np.ndarray  # (N, E) float64, Å; inf where there is none

    @property
    def nearest(self) -> np.ndarray:
        """(N,) distance of the nearest atom, Å; inf where there is none."""
        return self.closest.min(axis=1)


def bonding_distance(a: int, b: int) -> float:
    """Within what distance (Å) atoms of two atomic numbers count as bonded."""
    return BONDED * float(covalent_radii[a] + covalent_radii[b])


def surroundings(
    kinds: Sequence[int],
    numbers: np.ndarray,
    positions: np.ndarray,
    counts: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
) -> Surroundings:
    """Of every atom of S structures, one after another: ``numbers`` (N,), ``positions`` (N, 3), ``counts`` (S,) atoms
    each, ``cell`` (S, 3, 3), ``pbc`` (S, 3); lengths in Å. ``kinds`` holds all atomic numbers there.
    """
    kinds = np.asarray(kinds)
    order = np.argsort(kinds)
    rows = order[np.searchsorted(kinds, numbers, sorter=order)]
    bonding = BONDED * np.add.outer(covalent_radii[kinds], covalent_radii[kinds])
    present = np.unique(rows)
    reach = max(REACH, float(bonding[np.ix_(present, present)].max()))
    i, j, distance = _pairs(positions, counts, cell, pbc, reach)
    of_pair = bonding[rows[i], rows[j]]
    near = np.flatnonzero(distance < np.maximum(REACH, of_pair))
    i, j, distance, of_pair = i[near], j[near], distance[near], of_pair[near]
    shape = (len(numbers), len(kinds))
    slot = i * len(kinds) + rows[j]  # of an atom and a kind
    heavy = (numbers[i] > 1) & (numbers[j] > 1)
    closest = np.full(shape[0] * shape[1], np.inf)
    np.minimum.at(closest, slot, distance)
    count = {"bonds": distance < of_pair, "shell": heavy & (distance < SHELL)}
    counted = {name: np.bincount(slot[which], minlength=len(closest)).reshape(shape) for name, which in count.items()}
    return Surroundings(rows, closest=closest.reshape(shape), **counted)


def _pairs(
    positions: np.ndarray, counts: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both atoms (E,), (E,) and distance (E,) of all pairs: of molecules all at once, of boxes one after another."""
    if counts.max() <= MOLECULE and not pbc.any():
        i, j, _ = search_molecules(positions, counts, reach)
        return i, j, np.linalg.norm(positions[i] - positions[j], axis=1)
    found = []
    for first, count, box, axes in zip(np.cumsum(counts) - counts, counts, cell, pbc, strict=True):
        mine = positions[first : first + count]
        i, j, shift = search_pairs(mine, box, axes, reach)
        found.append((i + first, j + first, np.linalg.norm(mine[i] - mine[j] - shift @ box, axis=1)))
    i, j, distance = zip(*found, strict=True)
    return np.concatenate(i), np.concatenate(j), np.concatenate(distance)
