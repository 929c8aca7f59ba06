"""OMNIMOL's labels in units that its network is trained on (eq. 10, 11), and its loss (eq. 12), as the paper has them.

The trainer's own terms are compared with these, and these with the golden numbers.

    dE = E_DFT - sum_i E_Z(i),   E* = (dE - mu) / sigma over molecules,   F* = F / sigma_F with one sigma_F and no mean
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def formation_energy(energy: Tensor, atom_energies: Tensor, numbers: Tensor, system: Tensor) -> Tensor:
    """dE (S,) of total energies (S,), isolated-atom energies by atomic number (119,), numbers and molecules (N,)."""
    return energy - torch.zeros_like(energy).index_add(0, system, atom_energies[numbers])


@dataclass(frozen=True)
class Scales:
    """Shift and scales of labels, as they stand in a config: energy_shift, energy_scale, force_scale."""

    energy_shift: float  # mu, eV per molecule
    energy_scale: float  # sigma, eV
    force_scale: float  # sigma_F, eV/Å

    @classmethod
    def per_molecule(cls, delta: Tensor, forces: Tensor) -> "Scales":
        """Mean and population standard deviation of dE (S,) over molecules, as in the paper; forces (N, 3).

        Its constant mu belongs to a molecule, whatever its size.
        """
        spread = float((delta - delta.mean()).square().mean().sqrt())
        return cls(float(delta.mean()), spread, float(forces.square().mean().sqrt()))

    def energies(self, delta: Tensor) -> Tensor:
        """dE (S,), eV -> E*."""
        return (delta - self.energy_shift) / self.energy_scale


def molecule_losses(
    energy: Tensor, true_energy: Tensor, forces: Tensor, true_forces: Tensor, system: Tensor,
    energy_weight: float = 1.0, force_weight: float = 10.0,
) -> Tensor:  # fmt: skip
    """(S,): energy_weight |dE*| + force_weight / (3 n) sum |dF*| of each molecule of n atoms; standardised inputs.

    Their mean over molecules is the loss of eq. 12.
    """
    misses = (forces - true_forces).abs().sum(1)
    sums = torch.zeros_like(energy).index_add(0, system, misses.to(energy.dtype))
    counts = torch.bincount(system, minlength=len(energy)).to(energy.dtype)
    return energy_weight * (energy - true_energy).abs() + force_weight / (3 * counts) * sums
