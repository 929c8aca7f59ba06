"""``State``: all that decides how a run goes on, as one plain value that saves and restores all of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import units
from torch import Tensor

if TYPE_CHECKING:
    from omnicalc.md.forces import Evaluation


@dataclass(frozen=True, eq=False)
class State:
    """N atoms of S systems at one moment; all tensors on one device.

    Integrators make a new state, none is ever changed in place. Velocities are in ASE's unit, sqrt(eV/amu) =
    Å per ASE time unit. ``generator`` stands where the next random number of this state comes from; an
    integrator that draws from it works on a copy. ``bath`` and ``barostat`` hold whatever the thermostat and the
    barostat of the run carry from step to step, empty where they carry nothing. ``unbiased`` has no say in how a run
    goes on and is not kept: the frame of a step is written before its restart file.
    """

    positions: Tensor  # (N, 3) float64, Å, never wrapped into the cell
    velocities: Tensor  # (N, 3) float64, sqrt(eV/amu); zero for fixed atoms
    forces: Tensor  # (N, 3) float64, eV/Å, at these positions; zero for fixed atoms
    energy: Tensor  # (S,) float64, eV, potential energy at these positions
    masses: Tensor  # (N,) float64, amu
    step: int
    generator: torch.Generator
    com_removed: bool  # the centre of mass was set at rest and the dynamics keeps it so
    degrees_of_freedom: int  # that velocities have: 3N less fixed atoms, constraints and a resting centre of mass
    cell: Tensor  # (3, 3) float64, Å, rows are lattice vectors; zeros where there is none
    stress: Tensor  # (3, 3) float64, eV/Å^3, of the potential at these positions; NaN where it was not asked for
    bath: Tensor  # float64, any shape: variables of the thermostat
    barostat: Tensor  # float64, any shape: variables of the barostat
    heat: Tensor  # () float64, eV: what thermostat and barostat have added to the energy so far
    unbiased: Evaluation | None = None  # energy and forces of the potential alone; None: they are those above

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def volume(self) -> float:
        """Å^3; 0 where a cell vector is missing."""
        return abs(float(np.linalg.det(self.cell.cpu().numpy())))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All of the state as numpy arrays, float64 kept bit for bit; :meth:`from_arrays` is the way back."""
        tensors = {name: getattr(self, name).detach().cpu().numpy() for name in _TENSORS}
        return tensors | {
            "step": np.array(self.step, dtype=np.int64),
            "com_removed": np.array(self.com_removed),
            "degrees_of_freedom": np.array(self.degrees_of_freedom, dtype=np.int64),
            "generator": self.generator.get_state().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> State:
        """The state that :meth:`to_arrays` gave. The device must be of the kind it ran on: generators differ
        between kinds.
        """
        generator = torch.Generator(device=device)
        generator.set_state(torch.from_numpy(np.array(arrays["generator"], dtype=np.uint8)))
        tensors = {name: torch.from_numpy(np.array(arrays[name], dtype=np.float64)).to(device) for name in _TENSORS}
        return cls(
            **tensors,
            step=int(arrays["step"]),
            generator=generator,
            com_removed=bool(arrays["com_removed"]),
            degrees_of_freedom=int(arrays["degrees_of_freedom"]),
        )

    @classmethod
    def start(
        cls,
        positions: Tensor,
        velocities: Tensor,
        forces: Tensor,
        energy: Tensor,
        masses: Tensor,
        generator: torch.Generator,
        *,
        com_removed: bool = False,
        taken: int = 0,
        cell: Tensor | None = None,
        stress: Tensor | None = None,
        bath: Tensor | None = None,
        barostat: Tensor | None = None,
        unbiased: Evaluation | None = None,
    ) -> State:
        """A state at step 0; ``taken``: degrees of freedom that fixed atoms and constraints take."""
        nothing = positions.new_zeros(0)
        return cls(
            positions,
            velocities,
            forces,
            energy,
            masses,
            0,
            generator,
            com_removed,
            degrees_of_freedom(len(masses), com_removed) - taken,
            positions.new_zeros(3, 3) if cell is None else cell,
            positions.new_full((3, 3), torch.nan) if stress is None else stress,
            nothing if bath is None else bath,
            nothing if barostat is None else barostat,
            positions.new_zeros(()),
            unbiased,
        )


_TENSORS = ("positions", "velocities", "forces", "energy", "masses", "cell", "stress", "bath", "barostat", "heat")


def degrees_of_freedom(n_atoms: int, com_removed: bool) -> int:
    """3N, less the three of a centre of mass that is kept at rest."""
    return 3 * n_atoms - (3 if com_removed else 0)


def draw_velocities(masses: Tensor, temperature_K: float, generator: torch.Generator) -> Tensor:
    """Maxwell-Boltzmann velocities, (N, 3) float64, sqrt(eV/amu): independent normals of variance k_B T / m.
    Advances ``generator``.
    """
    normal = torch.randn(len(masses), 3, dtype=torch.float64, device=masses.device, generator=generator)
    return normal * (units.kB * temperature_K / masses)[:, None].sqrt()


def remove_com_velocity(velocities: Tensor, masses: Tensor) -> Tensor:
    """The same velocities (N, 3) seen from the centre of mass; ``masses`` (N,), amu."""
    return velocities - (masses[:, None] * velocities).sum(dim=0) / masses.sum()
