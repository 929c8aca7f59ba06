"""Molecules guessed from distances, for analyses that leave out the pairs inside one molecule."""

from collections import Counter

import numpy as np

from omnicalc.analysis.one_set import within_one_set
from omnicalc.bonds import molecule_numbers, reach


def guess_bonds(positions: np.ndarray, elements: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Pairs of bonded atoms (B, 2) int, from one frame; box (6,) or None, Å and degrees.

    The rule of :mod:`omnicalc.bonds`, minimum image: metals, noble gases and unknown elements have no bonds. The search
    is MDAnalysis's, as that of :func:`omnicalc.bonds.bonds` loads torch.
    """
    from ase.data import atomic_numbers
    from MDAnalysis.lib.distances import calc_bonds

    own = reach(np.array([atomic_numbers.get(str(e), 0) for e in elements], dtype=np.int64))
    if not own.any():
        return np.empty((0, 2), dtype=np.int64)
    near = within_one_set(positions, 2 * float(own.max()), box)
    i, j = near.T
    distances = calc_bonds(positions[i], positions[j], box=box)
    bonded = (own[i] > 0) & (own[j] > 0) & (distances < own[i] + own[j])
    return near[bonded].astype(np.int64)


def guess_molecules(positions: np.ndarray, elements: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Molecule number of every atom, (N,) int, from the bonds of one frame (:func:`guess_bonds`)."""
    return molecules_of(guess_bonds(positions, elements, box), len(elements))


def molecules_of(bonds: np.ndarray, n_atoms: int) -> np.ndarray:
    """Molecule number of every atom, (N,) int: a molecule is a set of atoms connected by bonds (B, 2)."""
    return molecule_numbers(n_atoms, bonds[:, 0], bonds[:, 1])


def describe_molecules(molecules: np.ndarray, elements: np.ndarray) -> str:
    """Which molecules there are, most numerous first: ``64 H2O, 4 Na, 4 Cl``."""
    from ase.formula import Formula

    order = np.argsort(molecules, kind="stable")
    groups = np.split(elements[order], np.flatnonzero(np.diff(molecules[order])) + 1)
    kinds = Counter(tuple(sorted(str(e) for e in group)) for group in groups)
    names = [(count, Formula.from_list(list(kind)).format("hill")) for kind, count in kinds.items()]
    names.sort(key=lambda entry: (-entry[0], entry[1]))
    shown = ", ".join(f"{count} {name}" for count, name in names[:6])
    return shown + (f" and {len(names) - 6} other kinds" if len(names) > 6 else "")
