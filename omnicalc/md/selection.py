"""Atoms chosen by a short text: numbers from 0, ranges, elements. ``0-11,20,Na``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


def select(atoms: Atoms, text: str, option: str) -> np.ndarray:
    """Indices (M,) in ascending order, each once. Raises :class:`InputError`, naming ``option``, for a part that is
    none of the three or that no atom fits.
    """
    chosen = np.zeros(len(atoms), dtype=bool)
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        chosen[_part(atoms, part, option)] = True
    return np.flatnonzero(chosen)


def _part(atoms: Atoms, part: str, option: str) -> np.ndarray | slice:
    numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if numbers:
        first = int(numbers[1])
        last = first if numbers[2] is None else int(numbers[2])
        if first <= last < len(atoms):
            return slice(first, last + 1)
        if last < first:
            raise InputError(
                f"'{part}' goes backwards; a range has its lower number first, as in {option} {last}-{first}"
            )
        raise InputError(
            f"'{part}' names atoms outside 0 to {len(atoms) - 1}, counted from 0 in the order of the file ({option})"
        )
    if part in atomic_numbers and part != "X":
        members = np.flatnonzero(atoms.numbers == atomic_numbers[part])
        if members.size:
            return members
        raise InputError(f"no atom is {part}; the structure is {atoms.get_chemical_formula()} ({option})")
    raise InputError(f"'{part}' chooses no atoms; numbers from 0, ranges and elements do, as in {option} 0-11,20,Na")
