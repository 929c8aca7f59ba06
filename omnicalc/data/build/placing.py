"""Clusters: pieces put around a first one, each where electrostatics of point charges likes it best of a few tries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.build.geometry import Piece

if TYPE_CHECKING:
    from ase import Atoms

# Å between atoms of different pieces when placed, by how the charges stand: sodium to oxygen 2.3, H to O 1.9.
_CONTACT = {"ion-heavy": 2.3, "mg-heavy": 2.0, "anion-h": 2.1, "heavy-heavy": 2.8, "h-heavy": 1.9, "h-h": 2.1}


def place(pieces: Sequence[Piece], rng: np.random.Generator, tries: int = 12) -> Atoms:
    """All pieces in one structure, in contact and not overlapping; ``info`` has charge and spin (closed shell)."""
    return _filled([_turned(pieces[0], rng)], pieces[1:], rng, tries)


def place_apart(pieces: Sequence[Piece], distance: float, rng: np.random.Generator, tries: int = 12) -> Atoms:
    """As :func:`place`, but that the nearest atoms of the first two pieces are ``distance`` (Å) from each other, and
    held there by a constraint; the others are put around these two.
    """
    from ase.constraints import FixBondLength

    first, second = (_turned(one, rng) for one in pieces[:2])
    second = _moved_to(first, second, distance, rng)
    atoms = _filled([first, second], pieces[2:], rng, tries)
    gaps = np.linalg.norm(first.atoms.positions[:, None] - second.atoms.positions[None], axis=2)
    i, j = np.unravel_index(gaps.argmin(), gaps.shape)
    atoms.set_constraint(FixBondLength(int(i), len(first.atoms) + int(j)))
    return atoms


def _filled(placed: list[Piece], pieces: Sequence[Piece], rng: np.random.Generator, tries: int) -> Atoms:
    """``pieces`` put around what is ``placed``, each in turn."""
    for new in pieces:
        candidates = [_beside(placed, new, rng) for _ in range(int(rng.integers(2, tries + 1)))]
        placed.append(min(candidates, key=lambda one: _coulomb(placed, one)))
    atoms = placed[0].atoms.copy()
    for other in placed[1:]:
        atoms += other.atoms
    atoms.positions -= atoms.positions.mean(axis=0)
    charge = int(sum(p.charge for p in placed))
    electrons = int(atoms.numbers.sum()) - charge
    atoms.info = {"charge": charge, "spin": 1 + electrons % 2}
    return atoms


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix (3, 3), uniform."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def _turned(one: Piece, rng: np.random.Generator) -> Piece:
    atoms = one.atoms.copy()
    atoms.positions = atoms.positions @ random_rotation(rng).T
    return Piece(atoms, one.charge, one.partial)


def _moved_to(first: Piece, second: Piece, distance: float, rng: np.random.Generator) -> Piece:
    """``second`` brought in along a random line through both centres until its nearest atom is ``distance`` from the
    nearest of ``first``.
    """
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    there = first.atoms.positions - first.atoms.positions.mean(axis=0)
    here = second.atoms.positions - second.atoms.positions.mean(axis=0)
    away = distance + np.linalg.norm(there, axis=1).max() + np.linalg.norm(here, axis=1).max()

    def gap(along: float) -> float:
        return float(np.linalg.norm(there[:, None] - here[None] - along * direction, axis=2).min())

    while away > 0 and (beyond := gap(away) - distance) > 1e-3:  # atoms near each other by no more than the way made
        away -= beyond
    atoms = second.atoms.copy()
    atoms.positions = here + first.atoms.positions.mean(axis=0) + away * direction
    return Piece(atoms, second.charge, second.partial)


def _beside(placed: Sequence[Piece], new: Piece, rng: np.random.Generator) -> Piece:
    """``new`` turned at random and brought in along a random direction until it touches."""
    turned = _turned(new, rng)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    there = np.concatenate([p.atoms.positions for p in placed])
    numbers = np.concatenate([p.atoms.numbers for p in placed])
    limit = contacts(numbers, turned.atoms.numbers)
    target = there[int(rng.integers(len(there)))]  # aim at an atom, so that long molecules are met along their length
    start = target + direction * (np.linalg.norm(there - target, axis=1).max() + 8.0)
    # Gaps need not shrink steadily along the line, so walk in from outside in small steps.
    here = turned.atoms.positions.copy()
    for step in np.arange(0.0, np.linalg.norm(start - target) + 0.1, 0.1):
        shifted = here + start - direction * (step + 0.1)
        gaps = np.linalg.norm(there[:, None] - shifted[None], axis=2) - limit
        if gaps.min() < 0:
            break
        turned.atoms.positions = shifted
    return turned


def contacts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Contact distances (n_a, n_b) in Å by atomic numbers."""
    ions, anions = np.array([11, 19]), np.array([17])

    def table(first: int, second: int) -> float:
        pair = {first, second}
        if 12 in pair:
            return _CONTACT["mg-heavy"] if 1 not in pair else 2.5
        if pair & set(ions.tolist()):
            return _CONTACT["ion-heavy"] + (0.4 if 19 in pair or 17 in pair else 0.0)
        if pair & set(anions.tolist()) and 1 in pair:
            return _CONTACT["anion-h"]
        heavy = sum(z > 1 for z in (first, second))
        return _CONTACT[("h-h", "h-heavy", "heavy-heavy")[heavy]]

    return np.array([[table(int(x), int(y)) for y in b] for x in a])


def _coulomb(placed: Sequence[Piece], new: Piece) -> float:
    """Point-charge energy of ``new`` with the others, in e²/Å."""
    there = np.concatenate([p.atoms.positions for p in placed])
    charges = np.concatenate([p.partial for p in placed])
    distance = np.linalg.norm(there[:, None] - new.atoms.positions[None], axis=2)
    return float((charges[:, None] * new.partial[None] / distance).sum())
