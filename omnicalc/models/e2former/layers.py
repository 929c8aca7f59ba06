"""Building blocks of E2Former-V2 on features (N, (l_max+1)^2, C): norm, linear maps, feed-forward, radial parts.

Formulas: UBio-MolFM release (arXiv:2602.17709), E2Former-V2 architecture (arXiv:2601.16622).
"""

from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.e2former.angular import degree_of_row

# Gains of the release's gated activations, as sampled by e3nn (the exact integrals differ in the third digit).
SILU_GAIN = 1.6791767923989418
SIGMOID_GAIN = 1.8467055342154763


class SO3Linear(nn.Module):
    """One (C_out, C_in) matrix per degree, applied row-wise; bias on degree 0 only."""

    def __init__(self, l_max: int, c_in: int, c_out: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(l_max + 1, c_out, c_in).uniform_(-1, 1) / sqrt(c_in))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.register_buffer("degree", torch.tensor(degree_of_row(l_max)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, rows, C_in) -> (N, rows, C_out)."""
        return so3_linear(x, self.weight, self.bias, self.degree)

    def offset(self) -> Tensor:
        """(C_out,): the bias, zero where there is none."""
        return self.weight.new_zeros(self.weight.shape[1]) if self.bias is None else self.bias


def so3_linear(x: Tensor, weight: Tensor, bias: Tensor | None, degree: Tensor) -> Tensor:
    """Row-wise product with ``weight[degree]``: (N, rows, C_in) and (l_max+1, C_out, C_in) -> (N, rows, C_out)."""
    rows = weight.transpose(1, 2).index_select(0, degree)
    x = x.transpose(0, 1)
    if bias is None:
        return torch.bmm(x, rows).transpose(0, 1)
    offset = F.pad(bias.view(1, 1, -1), (0, 0, 0, 0, 0, len(degree) - 1))
    return torch.baddbmm(offset, x, rows).transpose(0, 1)


def split_degrees(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    """The rows of each degree along ``dim``. One split, because many slices make the backward pass fill zeros."""
    l_max = round(x.shape[dim] ** 0.5) - 1
    return x.split([2 * l + 1 for l in range(l_max + 1)], dim)


class RMSNorm(nn.Module):
    """Degree-balanced norm: y (n + 1e-5)^(-1/2) gamma + beta, one n per atom, scalars centred over channels first."""

    def __init__(self, l_max: int, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(l_max + 1, channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        degree = torch.tensor(degree_of_row(l_max))
        self.register_buffer("degree", degree, persistent=False)
        row_weight = 1 / ((2 * degree + 1).double() * (l_max + 1) * channels)  # float64 until the model is cast
        self.register_buffer("row_weight", row_weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, rows, C) -> (N, rows, C)."""
        rest = x.shape[1] - 1
        scalars, vectors = x.split([1, rest], 1)
        x = torch.cat([scalars - scalars.mean(-1, keepdim=True), vectors], 1)
        n = torch.matmul(x.square().sum(-1), self.row_weight)
        scale = (n + 1e-5).rsqrt()[:, None, None] * self.gamma.index_select(0, self.degree)
        return torch.addcmul(F.pad(self.beta.unsqueeze(0), (0, 0, 0, rest)), x, scale)


class FeedForward(nn.Module):
    """Gated feed-forward "s3": scalars become the gate's SiLU, degree l is scaled by its own sigmoid gate."""

    def __init__(self, l_max: int, channels: int):
        super().__init__()
        self.l_max = l_max
        self.linear_in = SO3Linear(l_max, channels, channels)
        self.gate = nn.Linear(channels, channels * (l_max + 1))
        self.linear_out = SO3Linear(l_max, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, rows, C) -> (N, rows, C)."""
        scalars, vectors = self.linear_in(x).split([1, x.shape[1] - 1], 1)
        gate = self.gate(scalars.squeeze(1)).unflatten(-1, (self.l_max + 1, -1))
        scalar_gate, gates = gate.split([1, self.l_max], 1)
        gates = SIGMOID_GAIN * gates.sigmoid().index_select(1, self.linear_in.degree[1:] - 1)
        return self.linear_out(torch.cat([SILU_GAIN * F.silu(scalar_gate), gates * vectors], 1))


class ScalarProjection(nn.Module):
    """Queries or keys: products of two linear maps summed over m, then an MLP; (N, rows, C) -> (N, H * d)."""

    def __init__(self, l_max: int, channels: int, heads: int, width: int):
        super().__init__()
        hidden = heads * width // 2
        self.l_max = l_max
        self.first = SO3Linear(l_max, channels, hidden)
        self.second = SO3Linear(l_max, channels, hidden, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(hidden * (l_max + 1), hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, heads * width),
        )

    def forward(self, x: Tensor) -> Tensor:
        product = self.first(x) * self.second(x)
        return self.mlp(torch.cat([part.sum(1) for part in split_degrees(product, 1)], -1))


def envelope(distances: Tensor, cutoff: float, kind: str) -> Tensor:
    """Smooth step from 1 at r = 0 to 0 at the cutoff, zero beyond. With x = r / cutoff:

    ``poly7``: 1 - 21 x^5 + 35 x^6 - 15 x^7 (release V1/V1.5); ``poly5``: 1 - 10 x^3 + 15 x^4 - 6 x^5 (branch
    e2formerv2). Both have zero first and second derivative at x = 1.
    """
    x = (distances / cutoff).clamp(max=1.0)
    if kind == "poly7":
        return 1 - x**5 * (21 - x * (35 - 15 * x))
    return 1 - x**3 * (10 - x * (15 - 6 * x))


def bell(distances: Tensor, lower: float, upper: float) -> Tensor:
    """(1 - t^2)^2 with t running from -1 at ``lower`` to 1 at ``upper``, zero outside."""
    t = ((2 * distances - (lower + upper)) / (upper - lower)).clamp(-1, 1)
    return (1 - t * t).square()


class CoreRepulsion(nn.Module):
    """h (1 - r / r_c)^3 for pairs closer than their core radius r_c, half of it to each atom; nothing beyond.

    It is for distances shorter than any in the training data, where a network knows nothing and may attract.
    """

    def __init__(self, elements: tuple[int, ...], cores: tuple[tuple[int, int, float], ...], height: float):
        super().__init__()
        radius = torch.zeros(len(elements), len(elements), dtype=torch.float64)
        for one, other, r in cores:
            i, j = elements.index(one), elements.index(other)
            radius[i, j] = radius[j, i] = r
        self.height = height
        self.register_buffer("radius", radius, persistent=False)

    def forward(self, distances: Tensor, target: Tensor, source: Tensor) -> Tensor:
        """Distances (N, K), element rows of targets (N,) and sources (N, K) -> energies (N,), eV."""
        radius = self.radius[target.unsqueeze(1), source]
        depth = (1 - distances / radius.clamp(min=1e-3)).clamp(min=0)  # no pair is nearer than a radius that is unset
        return (0.5 * self.height) * (depth**3).sum(1)


class GaussianBasis(nn.Module):
    """exp(-(r - mu_k)^2 / (2 (2 D)^2)) on a grid mu from 0 to the cutoff with spacing D; (...) -> (..., B)."""

    def __init__(self, cutoff: float, n_basis: int):
        super().__init__()
        self.register_buffer("offset", torch.linspace(0, cutoff, n_basis, dtype=torch.float64), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        spacing = self.offset[1] - self.offset[0]
        return torch.exp((r.unsqueeze(-1) - self.offset).square() * (-0.125 / spacing.square()))

    def derivatives(self, r: Tensor, order: int) -> list[Tensor]:
        """Values and their first ``order`` (1 or 2) derivatives by r, each (..., B)."""
        scale = -0.25 / (self.offset[1] - self.offset[0]).square()
        distance, value = r.unsqueeze(-1) - self.offset, self(r)
        slope = value * distance * scale
        return [value, slope] if order == 1 else [value, slope, slope * distance * scale + value * scale]


class BesselBasis(nn.Module):
    """sqrt(2 / cutoff) sin(k pi r / cutoff) / r, k = 1..B (Gasteiger et al., arXiv:2003.03123, eq. 7)."""

    def __init__(self, cutoff: float, n_basis: int):
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("k", torch.arange(1, n_basis + 1, dtype=torch.float64), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        r = r.unsqueeze(-1)
        return torch.sin(r * (self.k * (pi / self.cutoff))) * (sqrt(2 / self.cutoff) / r)

    def derivatives(self, r: Tensor, order: int) -> list[Tensor]:
        """Values and their first ``order`` (1 or 2) derivatives by r, each (..., B)."""
        r, wave = r.double().unsqueeze(-1), self.k * (pi / self.cutoff)
        over_r = sqrt(2 / self.cutoff) / r
        value = torch.sin(r * wave) * over_r
        slope = wave * torch.cos(r * wave) * over_r - value / r
        return [value, slope] if order == 1 else [value, slope, -wave.square() * value - 2 * slope / r]


class ElementRadial(nn.Module):
    """Radial network of the release on [basis(r); target table[Z_i]; source table[Z_j]] (Lin-LN-SiLU twice, Lin).

    The first linear map is folded over the element tables: it becomes W_r basis(r) + A[Z_i] + B[Z_j].
    """

    def __init__(self, n_basis: int, table_width: int, hidden: int, out: int, layernorm: bool = True):
        super().__init__()
        self.n_basis, self.table_width = n_basis, table_width
        self.first = nn.Linear(n_basis + 2 * table_width, hidden)
        norm = nn.LayerNorm if layernorm else lambda width: nn.Identity()
        self.rest = nn.Sequential(
            norm(hidden), nn.SiLU(), nn.Linear(hidden, hidden), norm(hidden), nn.SiLU(), nn.Linear(hidden, out)
        )

    def forward(self, basis: Tensor, target: Tensor, source: Tensor) -> Tensor:
        """(N, K, B), (N, W), (N, K, W) -> (N, K, out)."""
        w_r, w_t, w_s = self.first.weight.split([self.n_basis, self.table_width, self.table_width], 1)
        per_target = F.linear(target, w_t, self.first.bias).unsqueeze(1)
        return self.rest(F.linear(basis, w_r) + per_target + F.linear(source, w_s))


class PairRadial(nn.Module):
    """One small radial network for all blocks: Lin(basis(r)) + bias[Z_i, Z_j], SiLU, Lin, SiLU, Lin."""

    def __init__(self, n_basis: int, n_elements: int, hidden: int, out: int):
        super().__init__()
        self.n_elements = n_elements
        self.first = nn.Linear(n_basis, hidden, bias=False)
        self.pair_bias = nn.Parameter(torch.empty(n_elements * n_elements, hidden).uniform_(-1, 1))
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, basis: Tensor, target: Tensor, source: Tensor) -> Tensor:
        """Basis (N, K, B), element rows of targets (N,) and sources (N, K) -> (N, K, out)."""
        return self.of_pairs(basis, self.pair(target.unsqueeze(1), source))

    def of_pairs(self, basis: Tensor, pair: Tensor) -> Tensor:
        """Basis (..., B) and rows of ``pair_bias`` (...) -> (..., out)."""
        bias = F.embedding(pair, self.pair_bias)
        return self.last(F.silu(self.second(F.silu(self.first(basis) + bias))))

    def pair(self, target: Tensor, source: Tensor) -> Tensor:
        """Rows of ``pair_bias`` for element rows of targets and sources."""
        return target * self.n_elements + source
