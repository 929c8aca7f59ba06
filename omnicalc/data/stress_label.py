"""The label of a structure's stress, as ASE has it."""

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from omnicalc.errors import InputError


def stress_label(atoms: Atoms) -> np.ndarray | None:
    """(6,) Voigt xx, yy, zz, yz, xz, xy, eV/Å^3, positive under tension; None where there is none that is finite, or
    where the structure is not periodic along all axes.

    Raises :class:`InputError` for a label that is neither 6 numbers nor 3 x 3.
    """
    stress = None if atoms.calc is None else atoms.calc.results.get("stress")
    if stress is None or not atoms.pbc.all():
        return None
    stress = np.asarray(stress, dtype=float)
    if stress.shape not in ((6,), (3, 3)):
        raise InputError(f"stress of shape {stress.shape}; 6 numbers (Voigt) or 3 x 3, eV/Å^3, are needed")
    if not np.isfinite(stress).all():
        return None
    return stress if stress.shape == (6,) else full_3x3_to_voigt_6_stress(stress)
