"""A short-range repulsion that keeps atoms from falling into each other where a network was never trained.

Every pair of elements has a reach, a fraction of the sum of its covalent radii; beyond it nothing is added, so bonds
near their equilibrium feel nothing.
"""

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from omnicalc.models.omnimol.pairs import envelope

_COULOMB = 14.399645  # e^2 / (4 pi eps0), eV Å
_BOHR = 0.529177211  # Å
_ZBL = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


class Repulsion(nn.Module):
    """``zbl``: the screened nuclear repulsion of Ziegler, Biersack and Littmark (1985) under a smooth envelope;
    ``core``: h (1 - r/reach)^3, which stays finite.
    """

    def __init__(self, kind: str, reach: float, height: float):
        super().__init__()
        self.kind, self.reach, self.height = kind, reach, height
        self.register_buffer("radii", torch.from_numpy(covalent_radii[:119].copy()), persistent=False)

    def forward(self, r: Tensor, keep: Tensor, z: Tensor, other: Tensor) -> Tensor:
        """Distances (...), Å, atomic numbers of both atoms (...) -> energy of each pair (...), eV; 0 where not kept."""
        reach = (self.reach * (self.radii[z] + self.radii[other])).to(r.dtype)
        near = keep & (r < reach)
        r = torch.where(near, r, reach)
        energy = self._core(r, reach) if self.kind == "core" else self._zbl(r, reach, z, other)
        return torch.where(near, energy, 0.0)

    def _core(self, r: Tensor, reach: Tensor) -> Tensor:
        return self.height * (1 - r / reach) ** 3

    def _zbl(self, r: Tensor, reach: Tensor, z: Tensor, other: Tensor) -> Tensor:
        z, other = z.to(r.dtype), other.to(r.dtype)
        x = r * (z**0.23 + other**0.23) / (0.88534 * _BOHR)
        screening = sum(share * torch.exp(-rate * x) for share, rate in _ZBL)
        return _COULOMB * z * other / r * screening * envelope(r, reach)
