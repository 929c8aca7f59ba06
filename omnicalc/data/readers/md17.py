"""MD17 and rMD17: one molecule's trajectory as arrays in an npz file, kcal/mol and Å.

MD17 names them z, R, E, F; rMD17 nuclear_charges, coords, energies, forces (docs of the two releases). Other units can
be stated inside the file by the arrays ``e_unit`` ("eV") and ``r_unit`` ("Bohr"), as sGDML data sets do; forces are in
one by the other.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from omnicalc.data.npz_units import energy_unit, length_unit
from omnicalc.errors import InputError

_NAMES = (("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces"))


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
                self.energy, self.length = energy_unit(data, str(path)), length_unit(data, str(path))
                self.lattice = np.asarray(data["lattice"]) if "lattice" in data.files else None
        except InputError:
            raise
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise InputError(f"{path}: not an npz file of arrays ({error})") from None
        if self.numbers.dtype.kind not in "iu":  # others would be rounded down to some element
            raise InputError(f"{path}: atomic numbers of type {self.numbers.dtype}; whole numbers are needed")
        self.energies = self.energies.reshape(-1)
        shape = (len(self.energies), len(self.numbers), 3)
        if self.positions.shape != shape or self.forces.shape != shape:
            raise InputError(
                f"{path}: positions {self.positions.shape} and forces {self.forces.shape} do not fit {shape} of "
                "energies and atomic numbers"
            )
        if self.lattice is not None:
            _check_lattice(self.lattice, path)
        self.molecule = path.stem

    def __len__(self) -> int:
        return len(self.energies)

    def __getitem__(self, k: int) -> Atoms:
        atoms = Atoms(self.numbers, self.positions[k] * self.length, info={"molecule": self.molecule})
        if self.lattice is not None:
            atoms.set_cell(self.lattice * self.length)
            atoms.pbc = True
        energy, forces = float(self.energies[k]) * self.energy, self.forces[k] * (self.energy / self.length)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        return atoms


def _check_lattice(lattice: np.ndarray, path: Path) -> None:
    """Refuse one that is none, or of which nobody can tell whether its rows or its columns are the vectors."""
    if lattice.shape != (3, 3) or not np.allclose(lattice, lattice.T):
        raise InputError(
            f"{path}: lattice {lattice.tolist()}; a symmetric 3 x 3 matrix, such as that of a rectangular cell, is "
            "needed, for the vectors of others may be rows or columns: write the frames as extended XYZ"
        )
