"""Radial functions of the release: cosine cutoff, and two bases of a distance.

C(r) = (cos(pi r / r_c) + 1) / 2 below r_c, else 0
expnorm_k(r) = C(r) exp(-beta_k (exp(-alpha r) - mu_k)^2),  alpha = 5 / r_c
gauss_k(r) = exp(c (r - o_k)^2)
"""

import math

import torch
from torch import Tensor, nn

from omnicalc.models.scd.config import SCDConfig


class CosineCutoff(nn.Module):
    """C(r)^p; with p = 2 its first three derivatives vanish at the cutoff, with p = 1 (released) only the first."""

    def __init__(self, cutoff: float, power: int = 1):
        super().__init__()
        self.cutoff, self.power = cutoff, power

    def forward(self, r: Tensor) -> Tensor:
        value = 0.5 * ((math.pi / self.cutoff * r).cos() + 1)
        return torch.where(r < self.cutoff, value**self.power, 0.0)


class ExpNormBasis(nn.Module):
    """(E,) -> (E, K)."""

    def __init__(self, cutoff: float, size: int, trainable: bool, power: int):
        super().__init__()
        self.envelope = CosineCutoff(cutoff, power)
        self.alpha = 5.0 / cutoff
        start = math.exp(-cutoff)
        means = torch.linspace(start, 1, size)
        betas = torch.full((size,), (2 / size * (1 - start)) ** -2)
        _store(self, trainable, means=means, betas=betas)

    def forward(self, r: Tensor) -> Tensor:
        r = r.unsqueeze(-1)
        return self.envelope(r) * (-self.betas * ((-self.alpha * r).exp() - self.means).square()).exp()


class GaussBasis(nn.Module):
    """(E,) -> (E, K), without a cutoff factor."""

    def __init__(self, cutoff: float, size: int, trainable: bool, power: int):
        super().__init__()
        offset = torch.linspace(0, cutoff, size)
        _store(self, trainable, offset=offset, coeff=-0.5 / (offset[1] - offset[0]) ** 2)

    def forward(self, r: Tensor) -> Tensor:
        return (self.coeff * (r.unsqueeze(-1) - self.offset).square()).exp()


_BASES = {"expnorm": ExpNormBasis, "gauss": GaussBasis}


def basis_of(config: SCDConfig) -> nn.Module:
    """The radial basis that the settings ask for."""
    return _BASES[config.basis](config.cutoff, config.n_basis, config.trainable_basis, config.cutoff_power)


def _store(module: nn.Module, trainable: bool, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if trainable:
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)
