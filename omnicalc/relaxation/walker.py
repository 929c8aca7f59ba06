"""One structure on its way to a minimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units

from omnicalc.md.cell_rescaling import projected
from omnicalc.relaxation.coordinates import Atoms3N, AtomsAndCell, free
from omnicalc.relaxation.fire import Fire
from omnicalc.relaxation.lbfgs import Lbfgs

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.relaxation.settings import RelaxSettings

_WILD = 1e4  # eV/Å; such forces, or none that is a number, are no way down
_OPTIMIZERS = {"fire": Fire, "lbfgs": Lbfgs}


@dataclass(frozen=True, eq=False)
class Found:
    """What a potential says of one structure."""

    energy: float  # eV
    forces: np.ndarray  # (N, 3), eV/Å
    stress: np.ndarray | None  # (3, 3), eV/Å^3


class Walker:
    """A structure, its optimiser, and how far it is."""

    def __init__(self, atoms: Atoms, fixed: np.ndarray, settings: RelaxSettings):
        self.atoms, self.fixed, self.settings = atoms, fixed, settings
        positions, cell = np.array(atoms.positions), np.array(atoms.cell.array)
        pressure = settings.pressure_bar * units.bar
        self.coordinates = (
            AtomsAndCell(positions, cell, settings.relax_cell, pressure)
            if settings.relax_cell
            else Atoms3N(positions, cell, fixed)
        )
        self.optimizer = _OPTIMIZERS[settings.optimizer](settings.max_step)
        self.steps = 0
        self.first_energy = np.nan
        self.status = ""  # "" under way, else converged, unconverged or failed
        self.found: Found | None = None  # at the present structure

    def arrive(self, found: Found) -> None:
        """Take what the potential says of the present structure; afterwards ``status`` says whether to go on."""
        self.found = found
        if self.steps == 0:
            self.first_energy = found.energy
        if not np.isfinite(found.energy) or not np.abs(found.forces).max() < _WILD:
            self.status = "failed"
        elif self.fmax < self.settings.fmax and not self.smax_GPa > self.settings.smax_GPa:
            self.status = "converged"
        elif self.steps >= self.settings.steps:
            self.status = "unconverged"

    def go(self) -> None:
        """One step of the optimiser."""
        coordinates, found = self.coordinates, self.found
        forces = coordinates.forces(found.forces, found.stress)
        energy = found.energy
        if self.settings.relax_cell:
            energy += self.settings.pressure_bar * units.bar * abs(np.linalg.det(self.structure()[1]))
        coordinates.x = coordinates.x + self.optimizer.step(coordinates.x, forces, energy)
        self.steps += 1

    def structure(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 3) and cell (3, 3), Å."""
        return self.coordinates.structure()

    @property
    def fmax(self) -> float:
        """Largest force on an atom that may move, eV/Å."""
        return float(np.linalg.norm(free(self.found.forces, self.fixed), axis=1).max())

    @property
    def smax_GPa(self) -> float:  # noqa: N802
        """Largest deviation, GPa, of the stress from the pressure, as far as the cell can follow; NaN for a cell at
        rest.
        """
        if not self.settings.relax_cell:
            return np.nan
        excess = self.found.stress + self.settings.pressure_bar * units.bar * np.eye(3)
        return float(np.abs(projected(excess, self.settings.relax_cell)).max()) / units.GPa

    def result(self) -> Atoms:
        """The structure with energy, forces and stress, and how it was reached in ``info``."""
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        atoms, found = self.atoms.copy(), self.found
        positions, cell = self.structure()
        atoms.set_cell(cell)
        atoms.set_positions(positions, apply_constraint=False)
        results = {"energy": found.energy, "forces": found.forces}
        if found.stress is not None and np.isfinite(found.stress).all():
            results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
        atoms.calc = SinglePointCalculator(atoms, **results)
        if self.settings.steps:
            atoms.info |= {"status": self.status, "steps": self.steps}
        return atoms

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that decides how it goes on; :meth:`restore` takes it back."""
        arrays = {f"optimizer_{k}": v for k, v in self.optimizer.to_arrays().items()}
        return arrays | {
            "coordinates": self.coordinates.x,
            "steps": np.array(self.steps),
            "first_energy": np.array(self.first_energy),
            "status": np.array(self.status),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.optimizer.restore(
            {k.removeprefix("optimizer_"): v for k, v in arrays.items() if k.startswith("optimizer_")}
        )
        self.coordinates.x = arrays["coordinates"]
        self.steps, self.first_energy = int(arrays["steps"]), float(arrays["first_energy"])
        self.status = str(arrays["status"])
