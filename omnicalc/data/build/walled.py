"""GFN2-xTB as an ASE calculator for sampling, inside a soft wall that keeps clusters together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from omnicalc.data.labels.xtb import Xtb

if TYPE_CHECKING:
    from ase import Atoms

_STIFFNESS = 1.0  # eV/Å²
_ROOM_A = 1.0  # between the outermost atom at the start and the wall


class WalledXtb(Calculator):
    """Forces of GFN2-xTB plus ``-k (r - R)`` on atoms further than ``radius_A`` from the origin."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, radius_A: float):
        super().__init__()
        self._radius = radius_A
        self._xtb = Xtb(reuse=True, accuracy=1.0, rungs=1)  # tblite's default is enough to move by

    @classmethod
    def around(cls, atoms: Atoms) -> WalledXtb:
        """With the wall a little beyond the outermost of ``atoms``."""
        return cls(np.linalg.norm(atoms.positions, axis=1).max() + _ROOM_A)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        label = self._xtb(self.atoms)
        r = np.linalg.norm(self.atoms.positions, axis=1)
        beyond = np.clip(r - self._radius, 0.0, None)
        wall = -_STIFFNESS * beyond[:, None] * self.atoms.positions / np.maximum(r, 1e-9)[:, None]
        self.results = {
            "energy": label.energy + 0.5 * _STIFFNESS * float((beyond**2).sum()),
            "forces": label.forces + wall,
        }
