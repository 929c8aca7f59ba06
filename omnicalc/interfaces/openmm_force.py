"""What OpenMM calls at every step: positions in nm in, energy in kJ/mol and forces in kJ/mol/nm out."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, fields, replace

import numpy as np
import openmm
import torch
from ase import Atoms, units

from omnicalc.errors import InputError, RunError, WeightsError
from omnicalc.interfaces.openmm import INSTALL
from omnicalc.potential import BoundPotential, Potential
from omnicalc.registry import load_potential
from omnicalc.systems import Systems
from omnicalc.unlike_training import warn_if_unlike

NM = units.nm  # 10 Å
KJ_PER_MOL = units.kJ / units.mol  # eV; ASE's constants, so that energies are those of the ASE calculator


def check_version() -> None:
    """Raise :class:`InputError` for an OpenMM that has no forces in Python."""
    if not hasattr(openmm, "PythonForce"):
        raise InputError(
            f"OpenMM {openmm.version.version} is too old: 8.6.1 or newer is needed; type: {INSTALL} --upgrade"
        )


@dataclass
class ForceCall:
    """Energy and forces of one fixed set of atoms, as a function of an OpenMM State.

    OpenMM pickles it when a System is serialised. The pickle holds the settings below and nothing else: the weights
    are loaded again, at the first call, and refused unless they are the same bytes; the neighbour list is made anew.
    """

    model: str  # as load_potential takes it
    sha256: str | None
    head: str
    charge: int
    spin: int  # multiplicity 2S+1
    numbers: tuple[int, ...]  # of the atoms it is applied to, in their order
    periodic: bool
    device: str
    dtype: str
    kernel: str
    skin: float  # Å
    potential: Potential | None = field(default=None, repr=False, compare=False)  # None: loaded when it is needed

    def __post_init__(self):
        self._bound: BoundPotential | None = None
        self._box: bytes | None = None  # of the cell that _bound has; quicker to compare than an array
        self._lock = threading.Lock()  # Contexts in several threads may share one force

    def __reduce__(self):
        return ForceCall, tuple(getattr(self, f.name) for f in fields(self) if f.name != "potential")

    def __call__(self, state) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (N, 3) in kJ/mol/nm at the positions and in the box of ``state``.

        OpenMM turns errors into its OpenMMException, message included. Raises:
            InputError: positions that are not finite; at the first call also whatever :class:`Systems` refuses.
            RunError: energy or forces that are not finite.
            WeightsError: the weights are not here, or not those that the System was made with.
        """
        # in nm, as all of a State: value_in_unit would copy, and takes as long as the conversion to Å itself
        positions = state.getPositions(asNumpy=True)._value * NM
        cell = state.getPeriodicBoxVectors(asNumpy=True)._value * NM if self.periodic else None
        with self._lock:
            bound = self._bound_in(positions, cell)
            found = bound(torch.as_tensor(positions, device=bound.systems.device))
        energy, forces = float(found.energy), found.forces.cpu().numpy()
        if not math.isfinite(energy + forces.sum()):  # one pass: a number that is not finite spoils the sum
            raise RunError(self._not_finite(forces))
        return energy / KJ_PER_MOL, forces * (NM / KJ_PER_MOL)

    def _bound_in(self, positions: np.ndarray, cell: np.ndarray | None) -> BoundPotential:
        """The potential on these atoms, in this box: made at the first call, and told when a barostat moves the box."""
        box = None if cell is None else cell.tobytes()
        if self._bound is None:
            atoms = Atoms(self.numbers, positions, cell=cell, pbc=self.periodic)
            systems = Systems.from_atoms(atoms, charge=self.charge, spin=self.spin)
            self._bound = self._loaded().bind(systems, head=self.head, skin=self.skin)
            warn_if_unlike(self._bound.potential, self._bound.head, [systems])
        elif box != self._box:
            moved = torch.from_numpy(cell)[None].to(self._bound.systems.device)
            self._bound.systems = replace(self._bound.systems, cell=moved)
        self._box = box
        return self._bound

    def _loaded(self) -> Potential:
        if self.potential is None:
            potential = load_potential(self.model, device=self.device, dtype=self.dtype, kernel=self.kernel)
            if potential.sha256 != self.sha256:
                raise WeightsError(
                    f"this System was made with {self.model} of sha256 {self.sha256}, but the weights of that name "
                    f"here have {potential.sha256}; bring the same weights here, or make the System again"
                )
            self.potential = potential
        return self.potential

    def _not_finite(self, forces: np.ndarray) -> str:
        wrong = np.flatnonzero(~np.isfinite(forces).all(axis=1))
        what = f"a force on atom {wrong[0]} of the {len(forces)} it computes" if wrong.size else "an energy"
        return (
            f"{self.model} gave {what} that is not finite; look for atoms far too close to each other (minimise first: "
            "simulation.minimizeEnergy()), or use precision='double'"
        )
