"""A flat batch of molecules as padded clouds, which the point-edge transformer works on."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Padding:
    """Where each of N atoms of S molecules lies in a padded (S, M) batch, M the largest number of atoms."""

    slot: Tensor  # (N,) int64, place in the flattened (S M)
    column: Tensor  # (N,) int64, place within the molecule
    first: Tensor  # (N,) int64, flat number of the molecule's first atom
    mask: Tensor  # (S, M) bool

    @classmethod
    def of(cls, system: Tensor, n_systems: int) -> "Padding":
        """``system`` (N,): the molecule of each atom, ascending."""
        counts = torch.bincount(system, minlength=n_systems)
        first = (counts.cumsum(0) - counts)[system]
        column = torch.arange(len(system), device=system.device) - first
        width = int(counts.max())
        mask = torch.arange(width, device=system.device) < counts.unsqueeze(1)
        return cls(system * width + column, column, first, mask)

    def pad(self, flat: Tensor) -> Tensor:
        """(N, ...) -> (S, M, ...), zeros in padding."""
        empty = flat.new_zeros(self.mask.numel(), *flat.shape[1:])
        return empty.index_copy(0, self.slot, flat).unflatten(0, self.mask.shape)

    def flat(self, padded: Tensor) -> Tensor:
        """(S, M, ...) -> (N, ...)."""
        return padded.flatten(0, 1).index_select(0, self.slot)


def centred(positions: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """r - mean(r) of each molecule (eq. 9), (N, 3)."""
    return positions - means(positions, system, n_systems)[system]


def means(values: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """(N, ...) -> (S, ...), the mean over the atoms of each molecule."""
    sums = values.new_zeros(n_systems, *values.shape[1:]).index_add(0, system, values)
    counts = torch.bincount(system, minlength=n_systems).to(values.dtype)
    return sums / counts.view(-1, *[1] * (values.ndim - 1))
