"""Masses of a run; those of hydrogens may be larger, for a longer time step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnicalc.bonds import bonds
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_LIGHTEST = 2.0  # amu that must be left of an atom that hydrogens take from


def masses_of(atoms: Atoms, hydrogen_mass: float | None = None) -> np.ndarray:
    """Masses (N,) float64, amu: the structure's own, or repartitioned.

    With ``hydrogen_mass`` every hydrogen that is bonded to a heavier atom gets this mass, and the nearest such atom
    gives what it gains. Molecules weigh what they did, and masses have no say in what configurations are sampled;
    velocities and times have another meaning. Feenstra, Hess & Berendsen, J. Comput. Chem. 20, 786 (1999).

    Raises :class:`InputError` for masses that cannot be.
    """
    masses = np.array(atoms.get_masses(), dtype=np.float64)
    _check(atoms, masses)
    if hydrogen_mass is None:
        return masses
    i, j, shift = _bonds_of_hydrogens(atoms)
    distance = np.linalg.norm(atoms.positions[i] - atoms.positions[j] - shift @ atoms.cell.array, axis=1)
    order = np.lexsort((j, distance, i))
    nearest = order[np.unique(i[order], return_index=True)[1]]  # of each hydrogen, its shortest bond
    gain = hydrogen_mass - masses[i[nearest]]
    np.subtract.at(masses, j[nearest], gain)
    masses[i[nearest]] = hydrogen_mass
    low = np.flatnonzero((masses < _LIGHTEST) & (atoms.numbers > 1))
    if low.size:
        k = int(low[0])
        raise InputError(
            f"with hydrogens of {hydrogen_mass:g} amu, atom {k} ({atoms[k].symbol}) would be left with "
            f"{masses[k]:.3g} amu; give a smaller --hmr"
        )
    return masses


def check_hydrogens(atoms: Atoms, hydrogen_mass: float) -> None:
    """Raise :class:`InputError` where ``hydrogen_mass`` would change no mass, as in a structure without hydrogens."""
    if not _bonds_of_hydrogens(atoms)[0].size:
        raise InputError(
            f"--hmr {hydrogen_mass:g}: the structure has no hydrogen bonded to a heavier atom; leave it out"
        )


def _bonds_of_hydrogens(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every bond of a hydrogen to a heavier atom: the hydrogen, its partner, and the cell shift between them."""
    i, j, shift = bonds(atoms)
    heavy = (atoms.numbers[i] == 1) & (atoms.numbers[j] > 1)
    return i[heavy], j[heavy], shift[heavy]


def _check(atoms: Atoms, masses: np.ndarray) -> None:
    wrong = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(f"atom {k} ({atoms[k].symbol}) has the mass {masses[k]} amu; a positive one is needed")
