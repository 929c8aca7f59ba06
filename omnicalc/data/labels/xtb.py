"""GFN2-xTB through tblite: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
from ase.units import Bohr, Hartree

from omnicalc.data.labels.electrons import charge_and_unpaired, check_not_periodic
from omnicalc.data.labels.label import Label, LabelError
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

ACCURACY = 0.1  # of tblite: energy to 1e-7 Ha, charges to 2e-6 e
# The electronic temperature is part of the method, so no rung changes it.
_LADDER = ({}, {"mixer-damping": 0.2, "max-iter": 500})


class Xtb:
    """GFN2-xTB of structures of one composition after another; keeps the last wave function as a guess.

    Electronic temperature 300 K, the method's own; the energy then holds -TS of the electrons, which is
    negligible for closed shells, and forces are its exact derivative.
    """

    def __init__(self, *, reuse: bool = False, accuracy: float = ACCURACY, rungs: int = len(_LADDER)):
        self._reuse = reuse  # start from the last wave function: for neighbouring steps of one trajectory
        self._accuracy, self._rungs = accuracy, rungs
        self._last: tuple | None = None

    def __call__(self, atoms: Atoms) -> Label:
        """Raises :class:`LabelError` when the self-consistent charges do not converge."""
        check_not_periodic(atoms)
        charge, unpaired = charge_and_unpaired(atoms)
        same = self._last and self._last[0] == (atoms.numbers.tobytes(), charge, unpaired)
        if self._reuse and same:
            _, calculator, result = self._last
            calculator.update(np.ascontiguousarray(atoms.positions) / Bohr)
            with contextlib.suppress(RuntimeError):
                return self._label(atoms, calculator, result, 0)
        for rung, settings in enumerate(_LADDER[: self._rungs]):
            try:
                calculator = self._calculator(atoms, charge, unpaired, settings)
                return self._label(atoms, calculator, None, rung)
            except RuntimeError as error:
                reason = " ".join(str(error).split())
        self._last = None
        raise LabelError(f"GFN2-xTB: {reason}")

    def _label(self, atoms: Atoms, calculator, guess, rung: int) -> Label:
        result = calculator.singlepoint(guess) if guess is not None else calculator.singlepoint()
        charge, unpaired = charge_and_unpaired(atoms)
        self._last = ((atoms.numbers.tobytes(), charge, unpaired), calculator, result)
        energy = float(result.get("energy")) * Hartree
        forces = -np.asarray(result.get("gradient")) * (Hartree / Bohr)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise LabelError("GFN2-xTB: energy or forces are not finite")
        return Label(energy, forces, {"scf_rung": rung} if rung else {})

    def _calculator(self, atoms: Atoms, charge: int, unpaired: int, settings: dict):
        calculator = _calculator_class()(
            "GFN2-xTB", atoms.numbers, atoms.positions / Bohr, charge=float(charge), uhf=unpaired
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", self._accuracy)
        for key, value in settings.items():
            calculator.set(key, value)
        return calculator


def versions() -> str:
    """Program and version, as written into every entry."""
    from importlib.metadata import version

    _calculator_class()
    return f"tblite {version('tblite')}"


def _calculator_class():
    try:
        from tblite.interface import Calculator
    except ImportError:
        raise InputError("GFN2-xTB needs tblite; type: pip install 'omnicalc[label]'") from None
    return Calculator
