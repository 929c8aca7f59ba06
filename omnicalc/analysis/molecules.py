"""Molecules guessed from distances, for analyses that leave out the pairs inside one molecule."""

from collections import Counter

import numpy as np

BOND_TOLERANCE = 1.25  # times the sum of covalent radii: O-H up to 1.21 Å, above quantum-nuclei bonds, below H-bonds
_MAKES_NO_BOND = {
    "X",
    "He",
    "Ne",
    "Ar",
    "Kr",
    "Xe",
    "Li",
    "Na",
    "K",
    "Rb",
    "Cs",
    "Mg",
    "Ca",
    "Sr",
    "Ba",
    "Zn",
}


def guess_bonds(positions: np.ndarray, elements: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Pairs of bonded atoms (B, 2) int, from one frame; box (6,) or None, Å and degrees.

    Two atoms are bonded below ``BOND_TOLERANCE`` times the sum of their covalent radii (minimum image); ions
    and noble gases never are.
    """
    from ase.data import atomic_numbers, covalent_radii
    from MDAnalysis.lib.distances import self_capped_distance

    bonding = ~np.isin(elements, sorted(_MAKES_NO_BOND))
    radii = np.array([covalent_radii[atomic_numbers[e]] for e in elements])
    if not bonding.any():
        return np.empty((0, 2), dtype=np.int64)
    reach = float(2.0 * BOND_TOLERANCE * radii[bonding].max())
    near, distances = self_capped_distance(positions, max_cutoff=reach, box=box)
    i, j = near.T
    bonded = bonding[i] & bonding[j] & (distances < BOND_TOLERANCE * (radii[i] + radii[j]))
    return near[bonded].astype(np.int64)


def guess_molecules(positions: np.ndarray, elements: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Molecule number of every atom, (N,) int, from the bonds of one frame (:func:`guess_bonds`)."""
    return molecules_of(guess_bonds(positions, elements, box), len(elements))


def molecules_of(bonds: np.ndarray, n_atoms: int) -> np.ndarray:
    """Molecule number of every atom, (N,) int: a molecule is a set of atoms connected by bonds (B, 2)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n_atoms, n_atoms))
    return connected_components(graph, directed=False)[1].astype(np.int64)


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
