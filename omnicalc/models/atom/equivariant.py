"""Dense layers on vectors (..., V, 3) and scalars (..., S) that turn with the molecule."""

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]  # vectors and scalars


class Linear(nn.Module):
    """Vectors out of vectors without a bias, scalars out of scalars with one."""

    def __init__(self, into: tuple[int, int], out: tuple[int, int]):
        super().__init__()
        self.vectors = nn.Linear(into[0], out[0], bias=False)
        self.scalars = nn.Linear(into[1], out[1])

    def forward(self, pair: Pair) -> Pair:
        vectors, scalars = pair
        return self.vectors(vectors.transpose(-1, -2)).transpose(-1, -2), self.scalars(scalars)


class Norm(nn.Module):
    """Root mean square of the vectors' lengths, and of the scalars, brought to 1, then a weight per channel."""

    def __init__(self, vectors: int, scalars: int):
        super().__init__()
        self.vector_weight = nn.Parameter(torch.ones(vectors))
        self.scalar_weight = nn.Parameter(torch.ones(scalars))

    def forward(self, pair: Pair) -> Pair:
        vectors, scalars = pair
        size = (vectors.square().sum(-1).mean(-1) + 1e-4).rsqrt()[..., None, None]
        scale = (scalars.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return vectors * size * self.vector_weight[:, None], scalars * scale * self.scalar_weight


class FeedForward(nn.Module):
    """Scalars see the products of vectors; vectors are mixed and scaled by what the scalars say."""

    def __init__(self, vectors: int, scalars: int):
        super().__init__()
        self.left = nn.Linear(vectors, vectors, bias=False)
        self.right = nn.Linear(vectors, vectors, bias=False)
        self.hidden = nn.Linear(vectors + scalars, 2 * scalars)
        self.out = nn.Linear(2 * scalars, 2 * vectors + scalars)
        self.mix = nn.Linear(vectors, vectors, bias=False)

    def forward(self, pair: Pair) -> Pair:
        vectors, scalars = pair
        channels_last = vectors.transpose(-1, -2)
        left, right = self.left(channels_last), self.right(channels_last)
        products = (left * right).sum(-2)
        hidden = nn.functional.silu(self.hidden(torch.cat([products, scalars], -1)))
        a, b, added = self.out(hidden).split([vectors.shape[-2], vectors.shape[-2], scalars.shape[-1]], -1)
        turned = self.mix(a[..., None, :] * left + b[..., None, :] * channels_last)
        return turned.transpose(-1, -2), added


def added(a: Pair, b: Pair) -> Pair:
    return a[0] + b[0], a[1] + b[1]
