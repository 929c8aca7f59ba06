"""Bonds of fixed length: RATTLE, its equations solved by Newton's method, cluster by cluster.

Constraints that share atoms form a cluster. Clusters of one size are solved together, each exactly, so that a few
iterations reach the rounding of numbers where sweeps over single bonds need tens of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.bonds import molecule_numbers
from omnicalc.errors import RunError

if TYPE_CHECKING:
    from omnicalc.md.constraint_list import Bonds

_ITERATIONS = 60
_HOPELESS = 1e6  # relative error of a squared length
_SINGULAR = 1e-10  # smallest over largest eigenvalue of a cluster's matrix, scaled to a diagonal of ones


@dataclass(frozen=True, eq=False)
class _Clusters:
    """B clusters of K constraints each: rows ``first`` to ``first + B K`` of all constraints."""

    rows: slice
    shape: tuple[int, int]  # B, K
    coupling: Tensor  # (B, K, K) float64, 1/amu: how a unit pull along one bond changes another, but for directions
    square: Tensor  # (B, K), Å^2, lengths squared


class Constraints:
    """C bonds |r_i - r_j - n @ cell| = l, kept to a relative ``tolerance``; in the order of their clusters."""

    def __init__(self, bonds: Bonds, masses: Tensor, fixed: Sequence[int] = (), tolerance: float = 1e-10):
        """``masses`` (N,) amu; atoms ``fixed`` do not move."""
        device = masses.device
        parts = _by_size(bonds)
        order = np.concatenate([rows.ravel() for rows in parts])
        self.i, self.j = (torch.tensor(x[order], device=device) for x in (bonds.i, bonds.j))
        self.length = torch.tensor(bonds.length[order], device=device)
        self.images = torch.tensor(bonds.images[order], dtype=torch.float64, device=device)
        inverse = 1.0 / masses
        if len(fixed):
            inverse = inverse.index_fill(0, torch.tensor(fixed, device=device), 0.0)
        self.tolerance = tolerance
        self._across = bool(self.images.any())
        self._both = torch.cat([self.i, self.j])
        self._weight = torch.cat([inverse[self.i], -inverse[self.j]])[:, None]
        firsts = np.cumsum([0, *(rows.size for rows in parts)])
        self._groups = [self._clusters(first, rows.shape, inverse) for first, rows in zip(firsts, parts, strict=False)]

    def __len__(self) -> int:
        return len(self.i)

    def directions(self, positions: Tensor, cell: Tensor) -> Tensor:
        """(C, 3): r_i - r_j - n @ cell, Å."""
        direct = positions.index_select(0, self.i) - positions.index_select(0, self.j)
        return direct - self.images @ cell if self._across else direct

    def onto(self, positions: Tensor, along: Tensor, cell: Tensor) -> Tensor:
        """``positions`` (N, 3) moved until every length is right, by pulls along the bonds at ``along`` (N, 3):

            r_i ← r_i + λ d/m_i,  r_j ← r_j - λ d/m_j,  d the bond at ``along``

        Raises :class:`RunError` naming the worst bond when that cannot be.

        Ryckaert, Ciccotti & Berendsen, J. Comput. Phys. 23, 327 (1977).
        """
        bond, pull = self.directions(positions, cell), self.directions(along, cell)
        pulls = [self._reached(group, bond, pull) for group in self._groups]
        return self._pulled(positions, pulls[0] if len(pulls) == 1 else torch.cat(pulls))

    def tangent(self, velocities: Tensor, positions: Tensor, cell: Tensor) -> Tensor:
        """The part of ``velocities`` (N, 3) that changes no length: the nearest one in the metric of the masses.

        Andersen, J. Comput. Phys. 52, 24 (1983).
        """
        bond = self.directions(positions, cell)
        along = velocities.index_select(0, self.i) - velocities.index_select(0, self.j)
        growth, pulls = (bond * along).sum(1), []
        for group in self._groups:
            mine = bond[group.rows].view(*group.shape, 3)
            strength = _solved(mine @ mine.mT * group.coupling, growth[group.rows].view(group.shape))
            pulls.append((-strength[..., None] * mine).reshape(-1, 3))
        return self._pulled(velocities, pulls[0] if len(pulls) == 1 else torch.cat(pulls))

    def dependent(self, positions: Tensor, cell: Tensor) -> list[tuple[int, int]]:
        """Pairs of a cluster in which one constraint follows from the others; empty when there is none."""
        bond = self.directions(positions, cell)
        for group in self._groups:
            mine = bond[group.rows].view(*group.shape, 3)
            matrix = mine @ mine.mT * group.coupling
            scale = matrix.diagonal(dim1=1, dim2=2).sqrt()
            values = torch.linalg.eigvalsh(matrix / scale[:, :, None] / scale[:, None, :])
            bad = values[:, 0] < _SINGULAR * values[:, -1]
            if bool(bad.any()):
                first = group.rows.start + int(bad.nonzero()[0, 0]) * group.shape[1]
                rows = slice(first, first + group.shape[1])
                return list(zip(self.i[rows].tolist(), self.j[rows].tolist(), strict=True))
        return []

    def _reached(self, group: _Clusters, bond: Tensor, pull: Tensor) -> Tensor:
        """Pulls (B K, 3) after which the bonds of ``group`` have their lengths; Newton's method for all B at once, with
        the bonds alone, as pulls on one cluster move no other.
        """
        bond, pull = (x[group.rows].view(*group.shape, 3) for x in (bond, pull))
        strength = torch.zeros_like(group.square)
        for _ in range(_ITERATIONS):
            error = 0.5 * (bond.square().sum(-1) - group.square)
            worst = float((error / group.square).abs().max())
            if worst <= self.tolerance:
                return (strength[..., None] * pull).reshape(-1, 3)
            if not worst < _HOPELESS:
                break
            more = _solved(bond @ pull.mT * group.coupling, -error)
            strength = strength + more
            bond = bond + (group.coupling * more[:, None, :]) @ pull
        k = group.rows.start + int(error.abs().nan_to_num(torch.inf).argmax())
        i, j, length = int(self.i[k]), int(self.j[k]), float(self.length[k])
        raise RunError(f"the distance of atoms {i} and {j} cannot be held at {length:.4g} Å")

    def _pulled(self, vectors: Tensor, pulls: Tensor) -> Tensor:
        """``vectors`` (N, 3) with ``pulls`` (C, 3) over the masses added to their atoms i and taken from j."""
        return vectors.index_add(0, self._both, torch.cat([pulls, pulls]) * self._weight)

    def _clusters(self, first: int, shape: tuple[int, int], inverse: Tensor) -> _Clusters:
        rows = slice(int(first), int(first) + shape[0] * shape[1])
        i, j = self.i[rows].view(shape), self.j[rows].view(shape)
        coupling = inverse.new_zeros(*shape, shape[1])
        for mine, my_sign in ((i, 1.0), (j, -1.0)):
            for other, other_sign in ((i, 1.0), (j, -1.0)):
                same = mine[:, :, None] == other[:, None, :]
                coupling += torch.where(same, my_sign * other_sign * inverse[mine][:, :, None], 0.0)
        return _Clusters(rows, shape, coupling, self.length[rows].view(shape).square())


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """x (B, K) of matrix (B, K, K) x = right (B, K); what cannot be solved is not finite."""
    size = right.shape[1]
    if size == 1:
        return right / matrix[..., 0]
    if size == 2:  # most are: waters
        (a, b), (c, d) = matrix.unbind(1)[0].unbind(1), matrix.unbind(1)[1].unbind(1)
        p, q = right.unbind(1)
        return torch.stack([d * p - b * q, a * q - c * p], 1) / (a * d - b * c)[:, None]
    return torch.linalg.solve_ex(matrix, right).result


def _by_size(bonds: Bonds) -> list[np.ndarray]:
    """Rows of the constraints, (B, K) for each number K of constraints that clusters have."""
    label = molecule_numbers(int(max(bonds.i.max(), bonds.j.max())) + 1, bonds.i, bonds.j)[bonds.i]
    order = np.argsort(label, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [np.array([p for p in parts if len(p) == size]) for size in sorted({len(p) for p in parts})]
