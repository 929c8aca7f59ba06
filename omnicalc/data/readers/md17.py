"""MD17 and rMD17: one molecule's trajectory as arrays in an npz file, kcal/mol and Å.

MD17 names them z, R, E, F; rMD17 nuclear_charges, coords, energies, forces (docs of the two releases). Other units can
be stated inside the file by the array ``e_unit`` ("eV"), as sGDML data sets do.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from omnicalc.errors import InputError

_NAMES = (("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces"))
_KCAL = units.kcal / units.mol
_UNITS = {"kcal/mol": _KCAL, "ev": 1.0, "hartree": units.Hartree}


def open_file(path: Path) -> "MD17":
    return MD17(path)


class MD17(Sequence):
    """Frames of one file; npz members are compressed as wholes, so the arrays are in memory."""

    def __init__(self, path: Path):
        try:
            with np.load(path, allow_pickle=False) as data:
                names = next((n for n in _NAMES if set(n) <= set(data.files)), None)
                if names is None:
                    raise InputError(
                        f"{path}: arrays {', '.join(data.files)} found; z, R, E, F (MD17) or "
                        "nuclear_charges, coords, energies, forces (rMD17) are needed"
                    )
                self.numbers, self.positions, self.energies, self.forces = (np.asarray(data[n]) for n in names)
                unit = str(data["e_unit"]).lower() if "e_unit" in data.files else "kcal/mol"
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise InputError(f"{path}: not an npz file of arrays ({error})") from None
        if unit not in _UNITS:
            raise InputError(f"{path}: e_unit is '{unit}'; known are {', '.join(_UNITS)}")
        if self.numbers.dtype.kind not in "iu":  # others would be rounded down to some element
            raise InputError(f"{path}: atomic numbers of type {self.numbers.dtype}; whole numbers are needed")
        self.scale = _UNITS[unit]
        self.energies = self.energies.reshape(-1)
        shape = (len(self.energies), len(self.numbers), 3)
        if self.positions.shape != shape or self.forces.shape != shape:
            raise InputError(
                f"{path}: positions {self.positions.shape} and forces {self.forces.shape} do not fit {shape} of "
                "energies and atomic numbers"
            )
        self.molecule = path.stem

    def __len__(self) -> int:
        return len(self.energies)

    def __getitem__(self, k: int) -> Atoms:
        atoms = Atoms(self.numbers, self.positions[k], info={"molecule": self.molecule})
        energy, forces = float(self.energies[k]) * self.scale, self.forces[k] * self.scale
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        return atoms
