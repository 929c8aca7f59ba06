"""Masses of a run as run.json has them: of those elements that do not weigh what they usually do.

One number (amu) where all atoms of an element weigh the same; else a text of ``MASS*COUNT``, in the order of the
element's atoms: short where they follow each other by molecules.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import numpy as np


def as_record(numbers: np.ndarray, masses: np.ndarray) -> dict[str, float | str]:
    """From atomic numbers (N,) and masses (N,), amu."""
    from ase.data import atomic_masses, chemical_symbols

    found: dict[str, float | str] = {}
    for number in np.unique(numbers):
        own = masses[numbers == number]
        if (own == atomic_masses[number]).all():
            continue
        runs = [(mass, len(list(same))) for mass, same in groupby(own.tolist())]
        text = " ".join(f"{mass!r}*{count}" for mass, count in runs)
        found[chemical_symbols[number]] = runs[0][0] if len(runs) == 1 else text
    return found


def from_record(record: Mapping[str, float | str], elements: np.ndarray) -> np.ndarray:
    """Masses (N,), amu, of ``elements`` (N,) str; zero of those that ``record`` says nothing of.

    Raises :class:`ValueError` for another number of atoms.
    """
    masses = np.zeros(len(elements))
    for element, given in record.items():
        runs = [run.split("*") for run in given.split()] if isinstance(given, str) else None
        own = given if runs is None else np.concatenate([np.full(int(count), float(mass)) for mass, count in runs])
        masses[elements == element] = own
    return masses
