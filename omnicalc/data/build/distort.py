"""Geometries that dynamics visits too rarely: displaced atoms, stretched and squeezed bonds, pieces pressed close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.build.placing import random_rotation

if TYPE_CHECKING:
    from ase import Atoms

_BOND = 1.25  # two atoms are bonded up to this factor times the sum of their covalent radii


def rattled(atoms: Atoms, width: tuple[float, float], rng: np.random.Generator) -> Atoms:
    """Every atom displaced by a Gaussian whose width in Å is drawn from ``width`` for the whole structure."""
    copy = atoms.copy()
    copy.positions += rng.normal(scale=rng.uniform(*width), size=(len(copy), 3))
    return copy


def stretched(atoms: Atoms, factors: tuple[float, float], rng: np.random.Generator, most: int = 2) -> Atoms:
    """Up to ``most`` bonds that lie in no ring scaled by a factor drawn from ``factors``: the smaller side moves."""
    copy = atoms.copy()
    bonds = bonded_pairs(copy)
    rng.shuffle(bonds)
    wanted, done = int(rng.integers(1, most + 1)), 0
    for i, j in bonds:
        side = _side(len(copy), bonds, i, j)
        if side is None:
            continue
        anchor = i if side[j] else j
        tip = j if side[j] else i
        bond = copy.positions[tip] - copy.positions[anchor]
        copy.positions[side] += bond * (rng.uniform(*factors) - 1)
        done += 1
        if done == wanted:
            break
    return copy


def pressed(first: Atoms, second: Atoms, limits: np.ndarray, factor: float, rng: np.random.Generator) -> Atoms:
    """Both, turned at random, along a random line, where the closest of their distances is ``factor`` times its
    contact distance. ``limits`` (n_first, n_second) in Å.
    """
    a = first.positions @ random_rotation(rng).T
    b = second.positions @ random_rotation(rng).T
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    a, b = a - a[rng.integers(len(a))], b - b[rng.integers(len(b))]
    low, high = 0.0, 30.0
    for _ in range(40):  # the largest distance at which they just touch, by bisection from outside
        middle = 0.5 * (low + high)
        gap = (np.linalg.norm(a[:, None] - b[None] - direction * middle, axis=2) / limits).min()
        low, high = (middle, high) if gap < factor else (low, middle)
    both = first + second
    both.positions = np.concatenate([a, b + direction * high])
    return both


def bonded_pairs(atoms: Atoms) -> np.ndarray:
    """Pairs (n, 2) of atoms closer than ``_BOND`` times the sum of their covalent radii; metals have no bonds."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers] * np.where(np.isin(atoms.numbers, (11, 12, 19)), 0.0, 1.0)
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions[None], axis=2)
    near = distance < _BOND * (radii[:, None] + radii[None])
    return np.argwhere(np.triu(near, 1))


def _side(count: int, bonds: np.ndarray, i: int, j: int) -> np.ndarray | None:
    """Mask (count,) of the smaller of the two halves that fall apart without bond i-j; None in a ring."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keep = ~((bonds[:, 0] == i) & (bonds[:, 1] == j))
    rows, columns = bonds[keep].T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    if part[i] == part[j]:
        return None
    one, other = part == part[i], part == part[j]
    return one if one.sum() <= other.sum() else other
