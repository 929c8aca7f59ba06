"""Labels that cannot be right: missing, not finite, in other units, gradients in place of forces."""

from collections.abc import Mapping

import numpy as np
from ase import units

from omnicalc.data.misnamed_labels import misnamed_labels
from omnicalc.errors import InputError

LARGEST_FORCE = 1e3  # eV/Å; no structure that anybody means to train on has a larger one
# Ground-state energies of free atoms in Hartree, not relativistic. To Ar: Chakravorty et al., Phys. Rev. A 47, 3649
# (1993); from K on Hartree-Fock, which is within 0.1 % of that: Bunge et al., At. Data Nucl. Data Tables 53, 113 (1993)
_FREE_ATOMS = {
    1: -0.5, 2: -2.904, 3: -7.478, 4: -14.667, 5: -24.654, 6: -37.845, 7: -54.589, 8: -75.067, 9: -99.734, 10: -128.938,
    11: -162.255, 12: -200.053, 13: -242.346, 14: -289.359, 15: -341.259, 16: -398.110, 17: -460.148, 18: -527.540,
    19: -599.16, 20: -676.76, 21: -759.74, 22: -848.41, 23: -942.88, 24: -1043.36, 25: -1149.87, 26: -1262.44,
    27: -1381.41, 28: -1506.87, 29: -1638.96, 30: -1777.85, 31: -1923.26, 32: -2075.36, 33: -2234.24, 34: -2399.87,
    35: -2572.44, 36: -2752.06, 37: -2938.36, 38: -3131.55, 39: -3331.68, 40: -3539.00, 41: -3753.60, 42: -3975.55,
    43: -4204.79, 44: -4441.54, 45: -4685.88, 46: -4937.92, 47: -5197.70, 48: -5465.13, 49: -5740.17, 50: -6022.93,
    51: -6313.49, 52: -6611.78, 53: -6917.98, 54: -7232.14,
}  # fmt: skip
# The same with the core potentials of the def2 basis sets (28 electrons fewer): Hartree-Fock/def2-SVP, by PySCF
_WITH_CORE_POTENTIALS = _FREE_ATOMS | {
    37: -23.76, 38: -30.34, 39: -37.69, 40: -46.10, 41: -55.77, 42: -66.79, 43: -79.39, 44: -93.57, 45: -109.41,
    46: -127.00, 47: -146.02, 48: -166.85, 49: -189.11, 50: -213.14, 51: -238.99, 52: -266.76, 53: -296.50, 54: -328.30,
}  # fmt: skip
_FACTORS = {
    1 / units.Hartree: "energies in Hartree with forces in eV/Å",
    units.mol / units.kcal: "energies in kcal/mol with forces in eV/Å",
    units.mol / units.kJ: "energies in kJ/mol with forces in eV/Å",
    units.Hartree / units.Bohr: "energies in eV with forces in Hartree/Bohr",
    units.kcal / units.mol: "energies in eV with forces in kcal/mol/Å",
    1 / units.Bohr: "energies in Hartree with forces in Hartree/Bohr, or lengths in Bohr",
}
_UNITS = {"Hartree": units.Hartree, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol}  # in eV
_NEAR = 1.0  # Å; displacements between two frames below which energies follow forces closely enough


def check_labels(atoms, where: str, energies: bool, forces: bool) -> None:
    """Raise :class:`InputError` for a frame without the labels it should have, or with impossible ones."""
    labels = {} if atoms.calc is None else atoms.calc.results
    wanted = [name for name, on in (("energy", energies), ("forces", forces)) if on]
    missing = [name for name in wanted if labels.get(name) is None]
    if missing:
        there = misnamed_labels(atoms, missing)
        raise InputError(f"{where} lacks {' and '.join(missing)}{there}; every frame to learn from needs its labels")
    for name in wanted:
        if not np.isfinite(labels[name]).all():
            raise InputError(f"{where}: {name} not finite; leave this frame out")
    if forces:
        check_force_sizes(np.asarray(labels["forces"]), where)


def check_stress(atoms, where: str) -> None:
    """Raise :class:`InputError` for a stress label that is none; a frame may have no such label."""
    stress = None if atoms.calc is None else atoms.calc.results.get("stress")
    if stress is None:
        return
    if np.shape(stress) not in ((6,), (3, 3)):
        raise InputError(f"{where}: stress of shape {np.shape(stress)}; 6 numbers (Voigt) or 3 x 3, eV/Å^3, are needed")
    if not np.isfinite(stress).all():
        raise InputError(f"{where}: stress not finite; leave this frame out, or its stress")


def check_force_sizes(forces: np.ndarray, where: str) -> None:
    """Raise :class:`InputError` for a force too large to be in eV/Å, naming its atom."""
    sizes = np.linalg.norm(forces, axis=1)
    k = int(sizes.argmax())
    if sizes[k] >= LARGEST_FORCE:
        raise InputError(
            f"{where}: the force on atom {k} is {sizes[k]:.4g} eV/Å, which is no force of a structure to train on; "
            "check its unit (eV/Å is needed) or leave the frame out (omnicalc data subset --max-force, or max_force in "
            "[[data]] of a recipe)"
        )


def other_unit(numbers: np.ndarray, energy: float) -> str | None:
    """The unit in which a total energy is that of the free atoms, with all electrons or with the core potentials of the
    def2 basis sets; "" where that is eV or none of those known, None where an atom's number is not known, or its core
    may be left out in another way.

    One frame says little: valence energies in eV of some compositions come near those in Hartree.
    """
    elements = numbers.tolist()
    if not all(z in _FREE_ATOMS for z in elements):
        return None
    totals = [sum(table[z] for z in elements) for table in (_FREE_ATOMS, _WITH_CORE_POTENTIALS)]
    for unit, factor in {"": 1.0, **_UNITS}.items():
        if any(0.985 < energy * factor / units.Hartree / total < 1.015 for total in totals):
            return unit
    return "" if totals[0] == totals[1] else None


def check_references_scale(
    counts: Mapping[int, int], energy: float, table: Mapping[int, float], where: str, head: str
) -> None:
    """Raise :class:`InputError` when the energy is the sum of the reference energies in another unit."""
    total = sum(n * table.get(z, np.nan) for z, n in counts.items())
    for factor, unit in ((1 / units.Hartree, "Hartree"), (units.mol / units.kcal, "kcal/mol")):
        if np.isfinite(total) and total and 0.95 < energy / total / factor < 1.05:
            raise InputError(
                f"{where}: the energy {energy:.4f} is the sum of the reference energies of head '{head}' "
                f"({total:.4f} eV) in {unit}; energies in eV are needed"
            )


class UnitCheck:
    """Whether energies change as forces say between frames of one molecule: E2 - E1 = -(F1 + F2)/2 . (x2 - x1).

    The slope of one side on the other is 1 where units and signs agree, whatever method made the labels.
    """

    def __init__(self):
        self._last: dict[tuple, tuple] = {}
        self._said: list[float] = []
        self._found: list[float] = []
        self._units: list[str] = []  # of every frame's energy: one that is not eV, or ""
        self._example = ""

    def add_energy(self, atoms, where: str) -> None:
        """One more frame with an energy."""
        energy = float(atoms.calc.results["energy"])
        unit = other_unit(atoms.numbers, energy)
        if unit is not None:
            self._units.append(unit)
        if unit and not self._example:
            self._example = f"{where}: {energy:.4f}"

    def add(self, atoms) -> None:
        """One more frame, with energy and forces."""
        key = (tuple(atoms.numbers.tolist()), str(atoms.info.get("molecule", "")), tuple(atoms.cell.array.ravel()))
        positions, forces = atoms.positions, np.asarray(atoms.calc.results["forces"])
        energy = float(atoms.calc.results["energy"])
        before = self._last.get(key)
        self._last[key] = (positions, forces, energy)
        if before is None:
            return
        moved = positions - before[0]
        if np.abs(moved).max() < _NEAR:
            self._said.append(float(-0.5 * ((forces + before[1]) * moved).sum()))
            self._found.append(energy - before[2])

    def verdict(self, source: str) -> str | None:
        """What looks wrong, in words, or None; on slopes an opinion only when ten pairs of frames agree on one."""
        unit = next((u for u in _UNITS if self._units.count(u) > 0.5 * len(self._units)), None)
        if unit is not None:
            hint = f" (and forces in Hartree/Bohr by {units.Hartree / units.Bohr:.6f})" if unit == "Hartree" else ""
            return (
                f"{source}: energies are those of the free atoms in {unit} ({self._example}), so they are not in eV; "
                f"multiply energies by {_UNITS[unit]:.6f}{hint}"
            )
        said, found = np.array(self._said), np.array(self._found)
        if len(said) < 10 or not said.any() or not found.any():
            return None
        correlation = float((said @ found) / np.sqrt((said @ said) * (found @ found)))
        slope = float(np.sign(correlation) * np.sqrt((found @ found) / (said @ said)))
        if abs(correlation) < 0.9 or 0.6 < slope < 1.67:
            return None
        if slope < -0.6:
            return f"{source}: energies rise where the forces say they fall (slope {slope:.2f}; gradients, not forces?)"
        factor, what = min(_FACTORS.items(), key=lambda item: abs(np.log(item[0] / abs(slope))))
        guess = f" ({what}?)" if abs(np.log(factor / abs(slope))) < 0.35 else ""
        return f"{source}: between frames of one molecule energies change {slope:.3g} times what the forces say{guess}"
