"""``State``: all that decides how a run goes on, as one plain value that saves and restores all of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from ase import units
from torch import Tensor


@dataclass(frozen=True, eq=False)
class State:
    """N atoms of S systems at one moment; all tensors on one device.

    Integrators make a new state, none is ever changed in place. Velocities are in ASE's unit, sqrt(eV/amu) =
    Å per ASE time unit. ``generator`` stands where the next random number of this state comes from; an
    integrator that draws from it works on a copy.
    """

    positions: Tensor  # (N, 3) float64, Å, never wrapped into the cell
    velocities: Tensor  # (N, 3) float64, sqrt(eV/amu)
    forces: Tensor  # (N, 3) float64, eV/Å, at these positions
    energy: Tensor  # (S,) float64, eV, potential energy at these positions
    masses: Tensor  # (N,) float64, amu
    step: int
    generator: torch.Generator
    com_removed: bool  # the centre of mass was set at rest and the dynamics keeps it so

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def degrees_of_freedom(self) -> int:
        return degrees_of_freedom(self.n_atoms, self.com_removed)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All of the state as numpy arrays, float64 kept bit for bit; :meth:`from_arrays` is the way back."""
        tensors = {name: getattr(self, name).detach().cpu().numpy() for name in _TENSORS}
        return tensors | {
            "step": np.array(self.step, dtype=np.int64),
            "com_removed": np.array(self.com_removed),
            "generator": self.generator.get_state().numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> State:
        """The state that :meth:`to_arrays` gave. The device must be of the kind it ran on: generators differ
        between kinds.
        """
        generator = torch.Generator(device=device)
        generator.set_state(torch.from_numpy(np.array(arrays["generator"], dtype=np.uint8)))
        tensors = {
            name: torch.from_numpy(np.array(arrays[name], dtype=np.float64)).to(device) for name in _TENSORS
        }
        return cls(
            **tensors, step=int(arrays["step"]), generator=generator, com_removed=bool(arrays["com_removed"])
        )


_TENSORS = ("positions", "velocities", "forces", "energy", "masses")


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
