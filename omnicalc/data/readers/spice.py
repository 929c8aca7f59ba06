"""SPICE: one HDF5 group per molecule, with conformations and their DFT energies and gradients in atomic units.

Groups hold ``atomic_numbers`` (N,), ``conformations`` (C, N, 3) Bohr, ``dft_total_energy`` (C,) Hartree,
``dft_total_gradient`` (C, N, 3) Hartree/Bohr, ``smiles`` (with formal charges) and ``subset`` (README of the data set).
Forces are minus the gradient.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from omnicalc.errors import InputError

_NEEDED = ("atomic_numbers", "conformations", "dft_total_energy", "dft_total_gradient")


def open_file(path: Path) -> "Spice":
    return Spice(path)


class Spice(Sequence):
    """Conformations of all molecules, in the file's order of groups; read one at a time."""

    def __init__(self, path: Path):
        try:
            import h5py
        except ImportError:
            raise InputError(f"{path}: reading HDF5 needs h5py; type: pip install 'omnicalc[train]'") from None
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise InputError(f"{path}: not an HDF5 file ({error})") from None
        self.molecules, self._last, total = list(self._file), array("q"), 0
        for name in self.molecules:
            group = self._file[name]
            missing = [key for key in _NEEDED if key not in group]
            if missing:
                raise InputError(f"{path}: molecule '{name}' lacks {', '.join(missing)}; this is not SPICE's layout")
            _check_shapes(group, f"{path}: molecule '{name}'")
            total += len(group["conformations"])
            self._last.append(total)
        if not total:
            raise InputError(f"{path}: holds no molecule")

    def __len__(self) -> int:
        return self._last[-1]

    def __getitem__(self, k: int) -> Atoms:
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        k %= len(self)
        m = bisect_right(self._last, k)
        c = k - (self._last[m - 1] if m else 0)
        group = self._file[self.molecules[m]]
        numbers = np.asarray(group["atomic_numbers"])
        atoms = Atoms(numbers, np.asarray(group["conformations"][c], dtype=float) * units.Bohr)
        atoms.info["molecule"] = self.molecules[m]
        charge = _charge(group)
        if charge is not None:
            atoms.info["charge"] = charge
        if "subset" in group:
            atoms.info["config_type"] = _text(group["subset"])
        energy = float(group["dft_total_energy"][c]) * units.Hartree
        forces = -np.asarray(group["dft_total_gradient"][c], dtype=float) * units.Hartree / units.Bohr
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        return atoms


def _check_shapes(group, where: str) -> None:
    """Raise :class:`InputError` where labels are not those of the conformations; sequences end at an IndexError, so
    frames would go missing without a word.
    """
    shape = group["conformations"].shape
    wanted = {"conformations": (*shape[:1], *group["atomic_numbers"].shape, 3)}
    wanted |= {"dft_total_energy": shape[:1], "dft_total_gradient": wanted["conformations"]}
    for key, needed in wanted.items():
        if group[key].shape != needed:
            raise InputError(f"{where} has {key} of shape {group[key].shape}; {needed} is needed")


def _charge(group) -> int | None:
    """The total charge: stated, or the sum of the formal charges in the mapped SMILES."""
    if "total_charge" in group:
        return int(np.asarray(group["total_charge"]).reshape(-1)[0])
    if "smiles" in group:
        return smiles_charge(_text(group["smiles"]))
    return None


def smiles_charge(smiles: str) -> int:
    """Sum of the formal charges written in the bracket atoms of a SMILES text, such as [NH3+:1] or [O-2]."""
    import re

    total = 0
    for sign, digits in re.findall(r"\[[^\]]*?([+-]+)(\d*)(?::\d+)?\]", smiles):
        size = int(digits) if digits else len(sign)
        total += size if sign[0] == "+" else -size
    return total


def _text(dataset) -> str:
    value = np.asarray(dataset[()]).reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)
