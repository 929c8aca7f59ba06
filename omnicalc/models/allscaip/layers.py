"""Parts of AllScAIP: activations, norms, radial features, feed-forward networks, attention."""

from math import log10, pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RMS_EPS = 1.1920929e-7  # the release's is that of the dtype at hand; weights are trained in float32
_SMELU = 2.0


def activation(name: str):
    """The function of that name; "gelu" is the exact one."""
    return _ACTIVATIONS[name]


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _star_relu(x: Tensor) -> Tensor:
    return 0.8944 * F.relu(x).square() - 0.4472


def _smelu(x: Tensor) -> Tensor:
    """0 below -2, x above 2, (x + 2)² / 8 between."""
    return torch.where(x.abs() <= _SMELU, (x + _SMELU).square() / (4 * _SMELU), F.relu(x))


_ACTIVATIONS = {
    "gelu": F.gelu,
    "relu": F.relu,
    "squared_relu": _squared_relu,
    "leaky_relu": F.leaky_relu,
    "smelu": _smelu,
    "star_relu": _star_relu,
}


class RMSNorm(nn.Module):
    """x / √(mean x² + eps) * weight, with one eps for every dtype."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + RMS_EPS).rsqrt() * self.weight


def norm(kind: str, width: int) -> nn.Module:
    """The normalisation "rms", "layer" or "none" over the last axis."""
    return {"rms": RMSNorm, "layer": nn.LayerNorm, "none": nn.Identity}[kind](width)


def linear(n_in: int, n_out: int) -> nn.Linear:
    """An affine map that starts without bias."""
    made = nn.Linear(n_in, n_out)
    nn.init.zeros_(made.bias)
    return made


def residual_scale(layers: int, trained: bool) -> nn.Parameter:
    """What a branch is multiplied by before it is added: 1/layers at the start, or 1 for good."""
    return nn.Parameter(torch.tensor(1 / layers if trained else 1.0), requires_grad=trained)


def radial_features(distance: Tensor, kind: str, cutoff: float, n: int) -> Tensor:
    """(..., n) from distances (...), Å: Gaussians twice as wide as their spacing, or sigmoids of that slope."""
    centres = torch.linspace(0, cutoff, n, dtype=distance.dtype, device=distance.device)
    x = (distance.unsqueeze(-1) - centres) * ((n - 1) / cutoff)  # in spacings
    if kind == "gaussian":
        return torch.exp(-0.125 * x * x)
    return torch.sigmoid(2 * x) + (0.002 * x if kind == "linear_sigmoid" else 0.0)


def sinc_features(distance: Tensor, n: int) -> Tensor:
    """sin(ωr)/(ωr), (..., n), from distances (...), Å, for ω from π/120 to π/0.25 in equal ratios."""
    omega = torch.logspace(log10(pi / 120), log10(pi / 0.25), n, dtype=distance.dtype, device=distance.device)
    x = distance.unsqueeze(-1) * omega
    small = x.abs() < 1e-4
    square = x * x
    series = 1 - square / 6 + square * square / 120
    safe = torch.where(small, 1.0, x)
    return torch.where(small, series, torch.sin(safe) / safe)


class MLP(nn.Module):
    """Two affine maps with an activation between, or one affine map when ``hidden`` is 0."""

    def __init__(self, width: int, hidden: int, n_out: int, act: str):
        super().__init__()
        self.act = activation(act)
        self.first = linear(width, hidden or n_out)
        self.second = linear(hidden, n_out) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x if self.second is None else self.second(self.act(x))


class FeedForward(nn.Module):
    """x + scale * MLP(norm(x))."""

    def __init__(self, config):
        super().__init__()
        self.norm = norm(config.norm, config.width)
        self.mlp = MLP(config.width, config.ffn_multiplier * config.width, config.width, config.activation)
        self.scale = residual_scale(config.layers, config.residual_scaling)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.mlp(self.norm(x))


class Attention(nn.Module):
    """What both kinds of attention share: norm, queries, keys and values by head, output map, residual scale."""

    def __init__(self, config):
        super().__init__()
        width = config.width
        self.heads, self.channels = config.attention_heads, width // config.attention_heads
        self.norm = norm(config.norm, width)
        self.query, self.key, self.value, self.out = (linear(width, width) for _ in range(4))
        self.scale = residual_scale(config.layers, config.residual_scaling)

    def by_head(self, x: Tensor) -> Tensor:
        """(B, n, A d) -> (B, A, n, d)."""
        return x.unflatten(-1, (self.heads, self.channels)).transpose(1, 2)

    def joined(self, x: Tensor) -> Tensor:
        """(B, A, n, d) -> (B, n, A d), through the output map."""
        return self.scale * self.out(x.transpose(1, 2).flatten(2))


class NeighborAttention(Attention):
    """Attention among the slots of each atom, h (N, K, H) -> what is to be added to h.

    logit(q, k) = q·k / √d + g_k; with ``angular`` = (c_0, c_1, ...) the channels of a head fall into segments of that
    many for each degree l, and q·k becomes the sum over l of q_l·k_l P_l(u_q·u_k).
    """

    def __init__(self, config):
        super().__init__(config)
        self.angular = config.angular

    def forward(self, h: Tensor, log_envelope: Tensor, polynomials: list[Tensor], first_only: bool = False) -> Tensor:
        """``log_envelope`` (N, K); ``polynomials`` P_l (N, K, K) of the slots' directions, or empty.

        With ``first_only`` just the first slot asks, and the result is (N, 1, H).
        """
        x = self.norm(h)
        asking = x[:, :1] if first_only else x
        q, k, v = self.by_head(self.query(asking)), self.by_head(self.key(x)), self.by_head(self.value(x))
        q = q / sqrt(self.channels)
        if self.angular:
            pairs = zip(q.split(self.angular, -1), k.split(self.angular, -1), polynomials, strict=True)
            rows = 1 if first_only else h.shape[1]
            logits = sum(a @ b.mT * p[:, :rows].unsqueeze(1) for a, b, p in pairs if a.shape[-1])
        else:
            logits = q @ k.mT
        weights = torch.softmax(logits + log_envelope[:, None, None, :], -1)
        return self.joined(weights @ v)


class NodeAttention(Attention):
    """Attention among all atoms of each structure, (N, H) -> what is to be added.

    With ``sinc`` frequencies, a bias log(softplus(sum_f w_hf sinc(ω_f r_ij)) + 1e-6) on the logits.
    """

    def __init__(self, config):
        super().__init__(config)
        if config.sinc:
            self.radial_weight = nn.Parameter(torch.full((config.attention_heads, config.sinc), 1 / config.sinc))

    def forward(self, x: Tensor, groups: list[Tensor], features: list[Tensor]) -> Tensor:
        """``groups`` hold the atoms (s, n) of s structures of n atoms, ``features`` their pairs' (s, n, n, F) or
        nothing.
        """
        x = self.norm(x)
        q, k, v = self.query(x), self.key(x), self.value(x)
        # fused attention never holds n x n numbers, but has no second derivatives, which training on forces needs
        attend = attention if self.training or q.requires_grad and self.query.weight.requires_grad else fused_attention
        mixed = torch.zeros_like(q)
        for atoms, pairs in zip(groups, features or [None] * len(groups), strict=True):
            parts = [self.by_head(t.index_select(0, atoms.reshape(-1)).view(*atoms.shape, -1)) for t in (q, k, v)]
            bias = None if pairs is None else self.bias(pairs)
            found = attend(*parts, bias).transpose(1, 2).flatten(2)
            mixed = mixed.index_copy(0, atoms.reshape(-1), found.flatten(0, 1))
        return self.scale * self.out(mixed)

    def bias(self, pairs: Tensor) -> Tensor:
        """(s, A, n, n) from sinc features (s, n, n, F)."""
        return torch.log(F.softplus(pairs @ self.radial_weight.T) + 1e-6).permute(0, 3, 1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q kᵀ / √d + bias) v of (s, A, n, d), differentiable as often as one likes."""
    logits = q @ k.mT / sqrt(q.shape[-1])
    return torch.softmax(logits if bias is None else logits + bias, -1) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """The same by torch's fused kernels, which need no memory for n x n numbers where there is no bias."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
