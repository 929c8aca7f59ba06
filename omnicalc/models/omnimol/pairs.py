"""Functions of pairs and of triples of atoms (OMNIMOL eq. 3, 4, 8), safe at zero distance and for padding. Å."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from omnicalc.models.xavier import xavier


class PairScalar(nn.Module):
    """g(x_i, x_j): Lin-GELU-Lin on [x_i, x_j] to one number; the first map is taken apart, W_a x_i + W_b x_j."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = xavier(nn.Linear(2 * width, hidden))
        self.fc2 = xavier(nn.Linear(hidden, 1))

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., d) -> the hidden layer's parts that i and j bring, (..., hidden) each."""
        left, right = self.fc1.weight.chunk(2, 1)
        return F.linear(x, left, self.fc1.bias), F.linear(x, right)

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Parts of i and j, broadcast against each other, (..., hidden) -> (...)."""
        return self.fc2(F.gelu(left + right)).squeeze(-1)


def softened(r: Tensor, core: float) -> Tensor:
    """(r^12 + core^12)^(1/12), without overflow at any r; core = 0 gives r itself."""
    if core == 0:
        return r
    c = torch.full_like(r, core)
    large, small = torch.maximum(r, c), torch.minimum(r, c)  # a clamp would count its slope twice at r = core
    return large * (1 + (small / large) ** 12) ** (1 / 12)


def distances_of(delta: Tensor, keep: Tensor) -> Tensor:
    """|delta| (...) of (..., 3); 1 where ``keep`` is false, so that nothing there has an infinite slope."""
    return torch.where(keep, delta.square().sum(-1), 1.0).sqrt()


def pair_features(
    delta: Tensor, keep: Tensor, g: Tensor, sigmas: Tensor, *, core: float = 0.0, with_vector: bool = True
) -> Tensor:
    """delta = r_i - r_j (..., 3), g (...), sigmas (n,) -> (..., [3 +] 7 + n), zero where ``keep`` (...) is false.

    Order: delta, r, 1/r, 1/r^2, 1/r^6, g/r, g/r^2, g/r^6, exp(-r^2 / (2 sigma^2)) (eq. 3, 4). ``core`` (Å) softens
    the inverse powers.
    """
    r = distances_of(delta, keep)
    inverse = 1 / softened(r, core)
    square = inverse * inverse
    powers = torch.stack([inverse, square, square * square * square], -1)
    gaussians = torch.exp((r * r).unsqueeze(-1) * (-0.5 / sigmas.square()))
    parts = [delta] if with_vector else []
    parts += [r.unsqueeze(-1), powers, g.unsqueeze(-1) * powers, gaussians]
    return torch.where(keep.unsqueeze(-1), torch.cat(parts, -1), 0.0)


def envelope(r: Tensor, cutoff: float | Tensor) -> Tensor:
    """1 - 10 u^3 + 15 u^4 - 6 u^5 of u = r / cutoff, 0 beyond; its first two derivatives are continuous."""
    u = (r / cutoff).clamp(max=1.0)
    return (1 - u) ** 3 * (1 + u * (3 + 6 * u))  # the same, but never below 0 by rounding


def cosines(delta: Tensor, keep: Tensor) -> Tensor:
    """cos of the angles between bonds (..., K, 3) of one centre -> (..., K, K), 0 for missing neighbours (eq. 8)."""
    unit = torch.where(keep, 1 / distances_of(delta, keep), 0.0).unsqueeze(-1) * delta
    return torch.matmul(unit, unit.transpose(-1, -2))


def upper(cos: Tensor) -> Tensor:
    """The K (K-1) / 2 entries above the diagonal of (..., K, K)."""
    a, b = torch.triu_indices(cos.shape[-1], cos.shape[-1], 1, device=cos.device)
    return cos[..., a, b]


def legendre(x: Tensor, degree: int) -> Tensor:
    """P_1 ... P_degree of (...) -> (..., degree); (l+1) P_{l+1} = (2l+1) x P_l - l P_{l-1}."""
    found = [torch.ones_like(x), x]
    for l in range(1, degree):
        found.append(((2 * l + 1) * x * found[l] - l * found[l - 1]) / (l + 1))
    return torch.stack(found[1 : degree + 1], -1)


def in_chunks(function: Callable[[slice], Tensor], n: int, at_once: int, dim: int) -> Tensor:
    """``function`` of slices of range(n), joined along ``dim``; where there are several, they are recomputed in the
    backward pass in place of being stored.
    """
    at_once = max(1, at_once)
    if n <= at_once:
        return function(slice(0, n))
    call = partial(checkpoint, function, use_reentrant=False) if torch.is_grad_enabled() else function
    return torch.cat([call(slice(first, min(first + at_once, n))) for first in range(0, n, at_once)], dim)
