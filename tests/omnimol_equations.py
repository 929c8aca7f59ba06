"""Energies and forces in units that a network is trained on (eq. 10, 11), and the paper's loss (eq. 12).

    dE = E_DFT - sum_i E_Z(i),   E* = (dE - mu) / sigma over molecules,   F* = F / sigma_F with one sigma_F and no mean
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from omnicalc.errors import InputError


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

        Its constant mu belongs to a molecule, whatever its size. For references by :func:`least_squares` the residual
        has no such constant: see :meth:`residual`.
        """
        return cls(float(delta.mean()), _spread(delta, "formation energies"), _spread(forces, "forces", mean=0.0))

    @classmethod
    def residual(cls, delta: Tensor, forces: Tensor) -> "Scales":
        """No shift; root mean squares of what per-element references leave of the energies, and of the forces."""
        return cls(0.0, _spread(delta, "energies less references", mean=0.0), _spread(forces, "forces", mean=0.0))

    def energies(self, delta: Tensor) -> Tensor:
        """dE (S,), eV -> E*."""
        return (delta - self.energy_shift) / self.energy_scale

    def forces(self, forces: Tensor) -> Tensor:
        """(N, 3), eV/Å -> F*."""
        return forces / self.force_scale


def _spread(values: Tensor, what: str, mean: float | None = None) -> float:
    centre = values.mean() if mean is None else mean
    spread = float((values - centre).square().mean().sqrt())
    if not spread > 0:
        raise InputError(f"the {what} of the training molecules are all the same; there is nothing to scale by")
    return spread


def least_squares(energy: Tensor, numbers: Tensor, system: Tensor) -> dict[int, float]:
    """Per-element energies, eV, whose sums fit total energies (S,) best; where the compositions leave them open, the
    smallest.
    """
    elements, column = numbers.unique(return_inverse=True)
    counts = energy.new_zeros(len(energy), len(elements), dtype=torch.float64)
    counts.index_put_((system, column), torch.ones_like(numbers, dtype=torch.float64), accumulate=True)
    found = torch.linalg.lstsq(counts, energy.double().unsqueeze(1), driver="gelsd").solution[:, 0]
    return dict(zip(elements.tolist(), found.tolist(), strict=True))


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
