"""Building blocks of PET v2 (OmniLearned, commit 922355d, MIT) on padded sequences (B, M, d): norm, MLP, attention.

Names of submodules and parameters are those of the published state dicts. Masks (B, M) are true for real entries;
``bias`` (B, H or 1, queries, keys) is added to attention logits and carries the mask of pairs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.xavier import xavier


class DynTanh(nn.Module):
    """tanh(a y) * w with one learned a and a learned vector w."""

    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Tensor) -> Tensor:
        return torch.tanh(self.alpha * y) * self.weight


class MLP(nn.Module):
    """Lin, exact GELU, DynTanh or nothing, dropout, Lin, dropout; (..., n_in) -> (..., n_out)."""

    def __init__(self, n_in: int, hidden: int, n_out: int, *, norm: bool = True, bias: bool = True, drop: float = 0.0):
        super().__init__()
        self.fc1 = xavier(nn.Linear(n_in, hidden, bias=bias))
        self.norm = DynTanh(hidden) if norm else nn.Identity()
        self.fc2 = xavier(nn.Linear(hidden, n_out, bias=bias))
        self.drop = drop

    def forward(self, y: Tensor) -> Tensor:
        y = F.dropout(self.norm(F.gelu(self.fc1(y))), self.drop, self.training)
        return F.dropout(self.fc2(y), self.drop, self.training)


class Attention(nn.Module):
    """Multi-head attention without biases, scale 1/sqrt(d/H); q, k, v are the thirds of one matrix.

    Written out in place of torch's fused kernels: forces are trained through a second derivative.
    """

    def __init__(self, width: int, heads: int, drop: float = 0.0):
        super().__init__()
        self.heads, self.drop = heads, drop
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj = xavier(nn.Linear(width, width, bias=False))

    def forward(self, query: Tensor, source: Tensor, bias: Tensor) -> Tensor:
        """Query (B, Q, d), source of keys and values (B, M, d) -> (B, Q, d)."""
        if query is source:
            q, k, v = F.linear(query, self.in_proj_weight).chunk(3, -1)
        else:
            width = query.shape[-1]
            w_q, w_kv = self.in_proj_weight.split([width, 2 * width])
            q, (k, v) = F.linear(query, w_q), F.linear(source, w_kv).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias
        weights = F.dropout(torch.softmax(logits, -1), self.drop, self.training)
        return self.out_proj(torch.matmul(weights, v).transpose(1, 2).flatten(2))


class AttBlock(nn.Module):
    """y + MHA(norm(y)) m, then y + MLP(norm(y)) m; with ``skip``, before all, y <- Lin[y, skip] m."""

    def __init__(
        self, width: int, heads: int, ratio: float = 2, *, skip: bool = False, mlp_drop: float = 0.0,
        attn_drop: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.skip_linear = xavier(nn.Linear(2 * width, width)) if skip else None
        self.norm1 = DynTanh(width)
        self.attn = Attention(width, heads, attn_drop)
        self.norm2 = DynTanh(width)
        self.mlp = MLP(width, int(ratio * width), width, drop=mlp_drop)

    def forward(self, y: Tensor, mask: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
        m = mask.unsqueeze(-1).to(y.dtype)
        if self.skip_linear is not None:
            y = self.skip_linear(torch.cat([y, skip], -1)) * m
        normed = self.norm1(y * m)
        y = y + self.attn(normed, normed, bias) * m
        return y + self.mlp(self.norm2(y)) * m


class TokenAttBlock(nn.Module):
    """The first T entries query all others: t + MHA(t, rest), then t + MLP(norm(t)); the others stay as they are."""

    def __init__(
        self, width: int, heads: int, tokens: int, ratio: float = 2, *, mlp_drop: float = 0.0, attn_drop: float = 0.0
    ):
        super().__init__()
        self.tokens = tokens
        self.norm = DynTanh(width)
        self.attn = Attention(width, heads, attn_drop)
        self.mlp = MLP(width, int(ratio * width), width, drop=mlp_drop)

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """``mask`` (B, T + M) of all entries."""
        tokens, rest = y[:, : self.tokens], y[:, self.tokens :]
        tokens = tokens + self.attn(tokens, rest, key_bias(mask[:, self.tokens :], y.dtype))
        tokens = tokens + self.mlp(self.norm(tokens))
        return torch.cat([tokens, rest], 1)


class WholeDrop(nn.Module):
    """Drops the embedding of whole clouds during training, without rescaling what stays."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, y: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return y
        keep = torch.rand(len(y), *[1] * (y.ndim - 1), device=y.device) >= self.rate
        return y * keep


def masked_logit(dtype: torch.dtype) -> float:
    """What masks a logit: finite, so that rows without any key give numbers; small enough for every dtype."""
    return max(-1e9, torch.finfo(dtype).min / 4)


def pair_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, M) -> (B, 1, M, M): 0 between real entries, very negative elsewhere."""
    pairs = mask.unsqueeze(1) & mask.unsqueeze(2)
    return torch.zeros_like(pairs, dtype=dtype).masked_fill(~pairs, masked_logit(dtype)).unsqueeze(1)


def key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, M) -> (B, 1, 1, M): 0 for real keys, very negative for padding."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, masked_logit(dtype))[:, None, None]
