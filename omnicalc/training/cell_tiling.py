"""Random supercells for pretraining on crystals: no structure of fewer than four atoms, and some of up to 2 x 2 x 2."""

import math

import numpy as np
from ase import Atoms


def tiled(atoms: Atoms, repeats: tuple[int, int, int]) -> Atoms:
    """``repeats`` copies along each axis: whole cells in i, j, k order, k fastest; cell rows scaled."""
    shifts = np.array(list(np.ndindex(*map(int, repeats)))) @ atoms.cell.array
    positions = (atoms.positions[None] + shifts[:, None]).reshape(-1, 3)
    cell = np.diag(np.asarray(repeats, dtype=float)) @ atoms.cell.array
    return Atoms(np.tile(atoms.numbers, len(shifts)), positions, cell=cell, pbc=atoms.pbc, info=dict(atoms.info))


def random_repeats(
    n_atoms: int, pbc, rng: np.random.Generator, *, least: int = 4, trials: int = 2, p: float = 0.5, most: int = 2
) -> tuple[int, int, int]:
    """Repeats per axis: ceil(least / n) - 1 forced ones on random periodic axes, then ``trials`` chances ``p`` of one
    more on a random periodic axis; at most ``most`` per axis, 1 along axes that are not periodic.
    """
    repeats, axes = [1, 1, 1], np.flatnonzero(pbc)
    if not len(axes):
        return (1, 1, 1)
    for _ in range(math.ceil(least / n_atoms) - 1):
        free = [k for k in axes if repeats[k] < most]
        if free:
            repeats[rng.choice(free)] += 1
    for _ in range(trials):
        if rng.random() < p:
            axis = rng.choice(axes)
            repeats[axis] = min(most, repeats[axis] + 1)
    return tuple(repeats)
