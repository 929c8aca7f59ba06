"""Formal charges from atomic numbers and bonds alone, for biomolecules with all hydrogens."""

from collections.abc import Sequence

import numpy as np

_FREE = {3: 1, 11: 1, 19: 1, 12: 2, 20: 2, 30: 2, 9: -1, 17: -1, 35: -1}  # of atoms without a bond


def formal_charges(numbers: np.ndarray, bonds: Sequence[tuple[int, int]]) -> np.ndarray:
    """Charges (n_atoms,) in e: free ions; ammonium; carboxylate and phosphate (all terminal oxygens but one count -1);
    guanidinium and imidazolium (on the carbon between the nitrogens).
    """
    numbers = np.asarray(numbers)
    near: list[list[int]] = [[] for _ in numbers]
    for i, j in bonds:
        near[i].append(j)
        near[j].append(i)
    charges = np.zeros(len(numbers), dtype=int)
    for k, z in enumerate(numbers.tolist()):
        degree = len(near[k])
        if degree == 0:
            charges[k] = _FREE.get(z, 0)
        elif z == 7 and degree == 4:
            charges[k] = 1
        elif z == 15 or (z == 6 and degree == 3):
            bare = [j for j in near[k] if numbers[j] == 8 and len(near[j]) == 1]
            charges[bare[1:]] = -1
            nitrogens = [j for j in near[k] if numbers[j] == 7]
            if z == 6 and _cationic(numbers, near, k, nitrogens):
                charges[k] = 1
    return charges


def _cationic(numbers: np.ndarray, near: list[list[int]], carbon: int, nitrogens: list[int]) -> bool:
    """Carbon of a guanidinium (three nitrogens) or of an imidazolium (two, and a hydrogen), each with three bonds."""
    three_bonds = all(len(near[j]) == 3 for j in nitrogens)
    hydrogen = any(numbers[j] == 1 for j in near[carbon])
    return three_bonds and (len(nitrogens) == 3 or (len(nitrogens) == 2 and hydrogen))
