"""Which bonds are held: ``--constrain h-bonds``, or pairs of atoms from a file.

A file has a line ``I J`` or ``I J LENGTH`` for each pair, atoms counted from 0, lengths in Å; ``#`` begins a comment.
As a setting the same pairs are ``I-J`` or ``I-J:LENGTH`` with commas between.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from omnicalc.bonds import bonds
from omnicalc.errors import InputError
from omnicalc.md.positive import positive

if TYPE_CHECKING:
    from ase import Atoms

H_BONDS = "h-bonds"


class Bonds(NamedTuple):
    """C pairs of atoms."""

    i: np.ndarray  # (C,) int64
    j: np.ndarray  # (C,) int64
    images: np.ndarray  # (C, 3), whole-numbered n: the bond is r_i - r_j - n @ cell
    length: np.ndarray  # (C,) float64, Å


def as_setting(given: str) -> str:
    """What was typed, as it is kept with a run: a file becomes its pairs. Raises :class:`InputError`."""
    if given == H_BONDS or not given:
        return given
    path = Path(given)
    if not path.is_file():
        raise InputError(
            f"--constrain {given}: no such file; '{H_BONDS}', or a file with a line 'I J' or 'I J LENGTH' for each "
            "pair is needed"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"--constrain {given}: not a text file") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) not in (2, 3) or not all(word.isdigit() for word in words[:2]):
            raise InputError(
                f"{given}, line {number}: '{line.strip()}'; 'I J' or 'I J LENGTH' is needed, as in 0 1 0.97"
            )
        pairs.append("-".join(words[:2]) + (f":{words[2]}" if words[2:] else ""))
    if not pairs:
        raise InputError(f"--constrain {given}: the file names no pair; a line 'I J' or 'I J LENGTH' is needed")
    return ",".join(pairs)


def constrained(atoms: Atoms, setting: str) -> Bonds | None:
    """The pairs that ``setting`` holds; None for an empty one. Raises :class:`InputError` for pairs that cannot be.

    ``h-bonds``: every bond of a hydrogen to another element, at the mean length that bonds of these two elements have
    in the structure: a model has no table of its equilibrium lengths, and single lengths of a snapshot are those of a
    vibration. A pair without a length is held at its own.
    """
    if not setting:
        return None
    return _h_bonds(atoms) if setting == H_BONDS else _pairs(atoms, setting)


def _h_bonds(atoms: Atoms) -> Bonds:
    i, j, shift = bonds(atoms)
    chosen = (atoms.numbers[i] == 1) & ((atoms.numbers[j] > 1) | (i < j))
    i, j, shift = i[chosen], j[chosen], shift[chosen]
    if not i.size:
        raise InputError("--constrain h-bonds: the structure has no bond of a hydrogen; leave it out")
    distance = np.linalg.norm(atoms.positions[i] - atoms.positions[j] - shift @ atoms.cell.array, axis=1)
    length = np.empty(len(i))
    for element in np.unique(atoms.numbers[j]):
        mine = atoms.numbers[j] == element
        length[mine] = distance[mine].mean()
    return Bonds(i, j, shift, length)


def _pairs(atoms: Atoms, setting: str) -> Bonds:
    pairs, lengths = [], []
    for part in setting.split(","):
        names, _, length = part.partition(":")
        i, _, j = names.partition("-")
        if not (i.strip().isdigit() and j.strip().isdigit()):
            raise InputError(f"'{part}' is no pair to constrain; I-J or I-J:LENGTH is needed, as in 0-1:0.97")
        i, j = sorted((int(i), int(j)))
        if i == j or j >= len(atoms):
            raise InputError(f"'{part}' names no two atoms among 0 to {len(atoms) - 1} (--constrain)")
        pairs.append((i, j))
        lengths.append(_length(length, part) if length else math.nan)
    twice = {pair for pair in pairs if pairs.count(pair) > 1} if len(set(pairs)) < len(pairs) else ()
    if twice:
        raise InputError(f"atoms {min(twice)[0]} and {min(twice)[1]} are constrained twice (--constrain)")
    i, j = np.array(pairs, dtype=np.int64).T
    images, distance = _nearest(atoms, i, j)
    length = np.where(np.isnan(lengths), distance, lengths)
    return Bonds(i, j, images, length)


def _length(text: str, part: str) -> float:
    value = positive(text)
    if value is None:
        raise InputError(f"'{part}' has the length '{text}'; a positive number of Å is needed, as in 0-1:0.97")
    return value


def _nearest(atoms: Atoms, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole-numbered image (C, 3) of each j that is nearest to its i, and how far that is, (C,) Å."""
    from ase.geometry import find_mic

    direct = atoms.positions[i] - atoms.positions[j]
    near, distance = find_mic(direct, atoms.cell, atoms.pbc)
    if not atoms.pbc.any():
        return np.zeros((len(i), 3)), distance
    return np.round((direct - near) @ np.linalg.pinv(atoms.cell.array)), distance
