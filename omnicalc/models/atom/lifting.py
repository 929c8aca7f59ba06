"""From positions, velocities and atomic numbers to channels: vectors first, as (V, 3) row by row, then scalars.

Maps keep the kind of their input: a vector out of vectors, a scalar out of scalars, each sum divided by the square root
of the number of its inputs. Their weights are one flat tensor, block after block in the order of the inputs.
"""

from math import sqrt

import torch
from torch import Tensor, nn

VECTOR, SCALAR = "vector", "scalar"
START = ((VECTOR, 1), (SCALAR, 1))  # x and |x|, or v and |v|


class EquivariantLinear(nn.Module):
    """``blocks``: kind and number of the inputs, in order; output ``vectors`` vectors and ``scalars`` scalars."""

    def __init__(self, blocks: tuple[tuple[str, int], ...], vectors: int, scalars: int):
        super().__init__()
        self.blocks = tuple(block for block in blocks if block[1])
        self.out = {VECTOR: vectors, SCALAR: scalars}
        self.count = {kind: sum(n for k, n in self.blocks if k == kind) for kind in (VECTOR, SCALAR)}
        self.weight = nn.Parameter(torch.randn(sum(n * self.out[kind] for kind, n in self.blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., 3 * vectors + scalars)."""
        lead, at, used = x.shape[:-1], 0, 0
        vectors = x.new_zeros(*lead, self.out[VECTOR], 3)
        scalars = x.new_zeros(*lead, self.out[SCALAR])
        for kind, n in self.blocks:
            width = self.out[kind]
            weight = self.weight[used : used + n * width].view(n, width) / sqrt(self.count[kind])
            used += n * width
            if kind == VECTOR:
                part = x[..., at : at + 3 * n].unflatten(-1, (n, 3))
                vectors = vectors + torch.einsum("uw,...ui->...wi", weight, part)
                at += 3 * n
            else:
                scalars = scalars + x[..., at : at + n] @ weight
                at += n
        return torch.cat([vectors.flatten(-2), scalars], -1)


class TensorProduct(nn.Module):
    """Fully connected product of two sets of channels (V vectors, S scalars) into a third of the same make."""

    def __init__(self, vectors: int, scalars: int):
        super().__init__()
        self.vectors, self.scalars = vectors, scalars
        self.weight = nn.Parameter(torch.randn(3 * vectors**2 * scalars + scalars**3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(..., 3V + S) twice -> (..., 3V + S)."""
        V, S = self.vectors, self.scalars
        if S == 0:  # no path is left
            return torch.zeros_like(x)
        xv, xs = x[..., : 3 * V].unflatten(-1, (V, 3)), x[..., 3 * V :]
        yv, ys = y[..., : 3 * V].unflatten(-1, (V, 3)), y[..., 3 * V :]
        dots, mixed, turned, plain = self.weight.split([V * V * S, V * S * V, S * V * V, S**3])
        to_scalar, to_vector = sqrt(V**2 + S**2), sqrt(2 * V * S)
        scalars = torch.einsum("uvw,...ui,...vi->...w", dots.view(V, V, S), xv, yv) / (sqrt(3) * to_scalar)
        scalars = scalars + torch.einsum("uvw,...u,...v->...w", plain.view(S, S, S), xs, ys) / to_scalar
        vectors = torch.einsum("uvw,...ui,...v->...wi", mixed.view(V, S, V), xv, ys)
        vectors = vectors + torch.einsum("uvw,...u,...vi->...wi", turned.view(S, V, V), xs, yv)
        return torch.cat([(vectors / to_vector).flatten(-2), scalars], -1)


class Lifting(nn.Module):
    """Channels of the running state, of the velocities and of the queries.

    ``kind``: "tensor-product" (queries are the product of positions with velocities, elements and graph),
    "linear" (queries are linear in all inputs) or "affine" (plain affine maps, which respect no rotation).
    """

    def __init__(self, kind: str, vectors: int, scalars: int, rrwp: int):
        super().__init__()
        self.kind, width = kind, 3 * vectors + scalars
        if kind == "affine":
            self.positions, self.velocities = nn.Linear(4, width), nn.Linear(4, width)
            self.features = nn.Linear(9 + rrwp, width)
            return
        self.positions = EquivariantLinear(START, vectors, scalars)
        self.velocities = EquivariantLinear(START, vectors, scalars)
        chemistry = ((SCALAR, 1), (SCALAR, rrwp))
        if kind == "linear":
            self.features = EquivariantLinear((*START, *START, *chemistry), vectors, scalars)
        else:
            self.moving = EquivariantLinear((*START, *chemistry), vectors, scalars)
            self.features = TensorProduct(vectors, scalars)

    def forward(self, x: Tensor, v: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x``, ``v`` (..., 4), ``features`` (..., 9 + R) -> three times (..., 3V + S)."""
        positions = self.positions(x)
        if self.kind == "tensor-product":
            return positions, self.velocities(v), self.features(positions, self.moving(features[..., 4:]))
        return positions, self.velocities(v), self.features(features)
