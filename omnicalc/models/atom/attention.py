"""Attention over all atoms of all frames at once: queries from one set of channels, keys and values from three."""

from math import pi, sqrt

import torch
from torch import Tensor, nn

from omnicalc.models.atom.feed_forward import FeedForward

_SAME = {torch.float64: 1e-12}  # distance up to which two tokens are equal but for rounding; else 1e-6


def rotate(x: Tensor, base: float) -> Tensor:
    """Rotary positions: channels (2i, 2i + 1) of ``x`` (B, H, T, N, d) turned by t * base^(-2i/d), t = 0 .. T-1."""
    width = x.shape[-1]
    rate = base ** (-torch.arange(0, width, 2, dtype=torch.float64, device=x.device) / width)
    angle = torch.arange(x.shape[2], dtype=torch.float64, device=x.device)[:, None] * rate
    cos, sin = (f(angle).to(x.dtype)[:, None] for f in (torch.cos, torch.sin))
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class HarmonicBias(nn.Module):
    """One number per head and pair of tokens from the direction between their first three channels.

    There is none between equal tokens, as copies along time are in the first block; the release takes it from rounding.
    """

    def __init__(self, heads: int):
        super().__init__()
        self.mlp = FeedForward("silu", (4, 16, 16, heads), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, L) -> (B, H, M, M)."""
        p = x[..., :3]
        difference = p[:, :, None] - p[:, None, :]
        distance = difference.norm(dim=-1, keepdim=True)
        unit = nn.functional.normalize(difference / (distance + 1e-6), dim=-1) * (distance > _SAME.get(x.dtype, 1e-6))
        constant = torch.full_like(unit[..., :1], 1 / sqrt(4 * pi))
        return self.mlp(torch.cat([constant, sqrt(3 / (4 * pi)) * unit], -1)).movedim(-1, 1)


class Attention(nn.Module):
    """Heterogeneous attention (one query, shared key and value maps for each source) or plain self attention."""

    def __init__(self, config):
        super().__init__()
        width, self.heads, self.head_width = config.width, config.attention_heads, config.head_width
        self.rope_base = None
        if config.rope:
            self.rope_base = config.rope_base if config.attention == "heterogeneous" else 1000.0
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.own = config.attention == "self"
        if self.own:
            self.key_value = nn.Linear(width, 2 * width)
        else:
            self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
            self.source_weights = nn.Parameter(0.1 * torch.randn(3))
        if config.learnable_denominator:
            self.denominator = nn.Parameter(torch.full((self.heads,), float(self.head_width)))
        else:
            self.denominator = float(self.head_width)
        self.bias = HarmonicBias(self.heads) if config.harmonics else None
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, query: Tensor, sources: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        """``query`` and each source (B, T, N, L), ``mask`` (B, T, N) of atoms that are there -> (B, T, N, L).

        The first of ``sources`` is the running state.
        """
        bias = 0.0 if self.bias is None else self.bias(sources[0].flatten(1, 2))
        if mask is not None:
            hidden = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
            bias = bias + hidden.flatten(1)[:, None, None]
        if self.own:
            q = self._split(self.query(sources[0]), turn=True)
            key, value = self.key_value(sources[0]).chunk(2, -1)
            mixed = self._attend(q, key, value, bias)
        else:
            q = self._split(self.query(query), turn=True)
            weights = self.source_weights.softmax(0)
            parts = (self._attend(q, self.key(s), self.value(s), bias) for s in sources)
            mixed = sum(w * part for w, part in zip(weights, parts, strict=True))
        mixed = mixed.transpose(1, 2).flatten(2).view(query.shape)
        return self.out(mixed)

    def _attend(self, q: Tensor, key: Tensor, value: Tensor, bias: Tensor | float) -> Tensor:
        """(B, H, M, d) for the tokens of ``q``; ``key`` and ``value`` are (B, T, N, L)."""
        k, v = self._split(key, turn=True), self._split(value, turn=False)
        denominator = self.denominator
        if isinstance(denominator, Tensor):
            denominator = denominator[:, None, None]
        logits = q @ k.transpose(-1, -2) / denominator + bias
        return self.dropout(logits.softmax(-1)) @ v

    def _split(self, x: Tensor, turn: bool) -> Tensor:
        """(B, T, N, L) -> (B, H, T * N, d)."""
        x = x.unflatten(-1, (self.heads, self.head_width)).movedim(-2, 1)
        if turn and self.rope_base is not None:
            x = rotate(x, self.rope_base)
        return x.flatten(2, 3)
