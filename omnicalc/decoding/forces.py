"""Energy and forces of one molecule by a potential of ours or by GFN2-xTB, to compare a decoder with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def forces_by(name: str, atoms: Atoms) -> Callable[[Atoms], tuple[float, np.ndarray]]:
    """A function from a frame of ``atoms`` to energy (eV) and forces (N, 3) eV/Å.

    ``name``: gfn2-xtb, or a potential by name or folder. Raises :class:`omnicalc.errors.OmniCalcError` where it cannot
    be used for these atoms.
    """
    if name.lower() == "gfn2-xtb":
        from omnicalc.data.tg_mini import Surface

        xtb = Surface(atoms.numbers)

        def by_xtb(frame: Atoms) -> tuple[float, np.ndarray]:
            force = xtb.forces(frame.positions)
            return xtb.energy, force

        return by_xtb
    from omnicalc.calculator import OmniCalc

    calculator = OmniCalc(name)

    def by_potential(frame: Atoms) -> tuple[float, np.ndarray]:
        calculator.calculate(frame, ["energy", "forces"])
        return calculator.results["energy"], calculator.results["forces"]

    by_potential(atoms)  # an element that it does not know is said now
    return by_potential
