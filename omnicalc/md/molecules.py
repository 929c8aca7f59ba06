"""Molecules as units that a barostat moves as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from omnicalc.bonds import bonds

if TYPE_CHECKING:
    from ase import Atoms


class Molecules(NamedTuple):
    """``positions + images @ cell`` has every molecule in one piece."""

    molecule: np.ndarray  # (N,) int64, 0 .. count - 1 in the order of first atoms
    images: np.ndarray  # (N, 3) float64, whole-numbered
    count: int
    networks: int  # bonded to their own periodic images, so in no one piece; their atoms count one by one


def molecules_of(atoms: Atoms) -> Molecules:
    """Molecules by bond distance; lone atoms are molecules of one atom."""
    i, j, shift = bonds(atoms)
    neighbours: list[list[tuple[int, tuple]]] = [[] for _ in range(len(atoms))]
    for a, b, n in zip(i.tolist(), j.tolist(), map(tuple, shift.tolist()), strict=True):
        neighbours[a].append((b, n))
    molecule, images = np.full(len(atoms), -1, dtype=np.int64), np.zeros((len(atoms), 3))
    count = networks = 0
    for first in range(len(atoms)):
        if molecule[first] >= 0:
            continue
        found, whole = _walk(first, neighbours)
        if whole:
            for atom, image in found.items():
                molecule[atom], images[atom] = count, image
            count += 1
        else:
            networks += 1
            members = sorted(found)
            molecule[members] = np.arange(count, count + len(members))
            count += len(members)
    return Molecules(molecule, images, count, networks)


def is_molecular(atoms: Atoms) -> bool:
    """Whether atoms are bonded to molecules, and none to an endless network."""
    found = molecules_of(atoms)
    return found.networks == 0 and found.count < len(atoms)


def _walk(first: int, neighbours: list[list[tuple[int, tuple]]]) -> tuple[dict[int, tuple], bool]:
    """Image of each atom bonded to ``first``, directly or not; whether all bonds agree on them."""
    found, whole, front = {first: (0.0, 0.0, 0.0)}, True, [first]
    while front:
        a = front.pop()
        here = found[a]
        for b, n in neighbours[a]:
            image = (here[0] + n[0], here[1] + n[1], here[2] + n[2])
            if b not in found:
                found[b] = image
                front.append(b)
            elif found[b] != image:
                whole = False
    return found, whole
