"""Geometries that dynamics visits too rarely: displaced atoms, stretched and squeezed bonds, pieces pressed close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnicalc.bonds import bonds, molecule_numbers
from omnicalc.data.build.placing import random_rotation

if TYPE_CHECKING:
    from ase import Atoms


def rattled(atoms: Atoms, width: tuple[float, float], rng: np.random.Generator) -> Atoms:
    """Every atom displaced by a Gaussian whose width in Å is drawn from ``width`` for the whole structure."""
    copy = atoms.copy()
    copy.positions += rng.normal(scale=rng.uniform(*width), size=(len(copy), 3))
    return copy


def stretched(atoms: Atoms, factors: tuple[float, float], rng: np.random.Generator, most: int = 2) -> Atoms:
    """Up to ``most`` bonds that lie in no ring scaled by a factor drawn from ``factors``: the smaller side moves."""
    copy = atoms.copy()
    pairs = bonded_pairs(copy)
    rng.shuffle(pairs)
    wanted, done = int(rng.integers(1, most + 1)), 0
    for i, j in pairs:
        side = _side(len(copy), pairs, i, j)
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
    """Pairs (n, 2) of bonded atoms, each once, smaller index first; metals have no bonds."""
    i, j, _ = bonds(atoms)
    return np.unique(np.stack([i, j], 1)[i < j], axis=0)


def _side(count: int, pairs: np.ndarray, i: int, j: int) -> np.ndarray | None:
    """Mask (count,) of the smaller of the two halves that fall apart without bond i-j; None in a ring."""
    keep = ~((pairs[:, 0] == i) & (pairs[:, 1] == j))
    part = molecule_numbers(count, *pairs[keep].T)
    if part[i] == part[j]:
        return None
    one, other = part == part[i], part == part[j]
    return one if one.sum() <= other.sum() else other
