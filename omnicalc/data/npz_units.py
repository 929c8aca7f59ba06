"""Units that an npz file of a trajectory may state in the arrays ``r_unit`` and ``e_unit``, as sGDML data sets do."""

from collections.abc import Mapping

import numpy as np
from ase import units

from omnicalc.errors import InputError

LENGTHS = {"ang": 1.0, "angstrom": 1.0, "å": 1.0, "bohr": units.Bohr, "a0": units.Bohr, "au": units.Bohr}  # Å
ENERGIES = {"kcal/mol": units.kcal / units.mol, "ev": 1.0, "hartree": units.Hartree}  # eV


def length_unit(arrays: Mapping[str, np.ndarray], where: str) -> float:
    """Å in the unit of positions, Å itself where the file does not tell. Raises :class:`InputError` for others."""
    return _unit(arrays, "r_unit", LENGTHS, "ang", where)


def energy_unit(arrays: Mapping[str, np.ndarray], where: str) -> float:
    """eV in the unit of energies, kcal/mol where the file does not tell. Raises :class:`InputError` for others."""
    return _unit(arrays, "e_unit", ENERGIES, "kcal/mol", where)


def _unit(arrays: Mapping[str, np.ndarray], key: str, known: dict[str, float], usual: str, where: str) -> float:
    given = np.asarray(arrays[key]).item() if key in arrays else ""
    unit = (given.decode() if isinstance(given, bytes) else str(given)).strip() or usual
    if unit.lower() not in known:
        raise InputError(f"{where}: {key} is '{unit}'; known are {', '.join(known)}")
    return known[unit.lower()]
