"""ATOM (arXiv:2510.05482): one start frame in, all later frames out, by attention over atoms and frames together."""

import torch
from torch import Tensor, nn

from omnicalc.models.atom.attention import Attention
from omnicalc.models.atom.config import AtomConfig
from omnicalc.models.atom.feed_forward import FeedForward
from omnicalc.models.atom.lifting import VECTOR, EquivariantLinear, Lifting

# epsilon of the norm, the same in every dtype: lifted velocities are small enough for it to matter
_EPS = torch.finfo(torch.float32).eps


class Block(nn.Module):
    """Attention and feed-forward network; outputs of later blocks are mixed with that of the first."""

    def __init__(self, config: AtomConfig):
        super().__init__()
        width = config.width
        self.norm = nn.RMSNorm(width, eps=_EPS) if config.norm == "rms" else nn.LayerNorm(width)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config.activation, (width,) * 4, config.dropout)
        self.mix = nn.Parameter(torch.tensor(0.5)) if config.value_residual == "learnable" else None

    def forward(
        self, x: Tensor, velocities: Tensor, query: Tensor, mask: Tensor | None, first: Tensor | None
    ) -> Tensor:
        """All (B, T, N, L); ``mask`` (B, T, N); ``first``: what the first block gave, None in the first block."""
        sources = tuple(self.norm(s) for s in (x, velocities, query))
        # the residual is taken from the normalised state, and queries from channels without a norm: as published
        out = sources[0] + self.attention(query, sources, mask)
        out = out + self.feed_forward(out)
        if mask is not None:
            out = out * mask[..., None]
        if self.mix is None or first is None:
            return out
        share = self.mix.sigmoid()
        return share * out + (1 - share) * first


class Atom(nn.Module):
    """The published network, in the published units: Å, and Å per stored frame."""

    def __init__(self, config: AtomConfig):
        super().__init__()
        self.config = config
        self.lifting = Lifting(config.lifting, config.vectors, config.scalars, config.rrwp)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        out = ((VECTOR, config.vectors),)
        self.heads = nn.ModuleList(EquivariantLinear(out, 1, 0) for _ in range(config.output_heads))
        self.gate = None
        if config.output_heads > 1:
            narrow = config.width // 4
            self.gate = FeedForward("swiglu", (config.width, narrow, narrow, config.output_heads), config.dropout)
        self.apply(_initialise)

    def forward(
        self, x: Tensor, v: Tensor, features: Tensor, mask: Tensor | None = None, frames: int | None = None
    ) -> Tensor:
        """Positions (B, T, N, 3) Å of ``frames`` later frames, by default as many as the network was made for.

        Args:
            x, v: (B, N, 4): vector and its length.
            features: (B, N, 9 + R): x, |x|, v, |v|, Z, return probabilities.
            mask: (B, N) bool, atoms that are there; outputs of the others mean nothing.
        """
        copies = frames or self.config.frames
        x, v, features = (t[:, None].expand(-1, copies, -1, -1) for t in (x, v, features))
        start = x[..., :3]
        if mask is not None:  # what stands at padding is not seen, not even by the gates
            mask = mask[:, None].expand(-1, copies, -1)
            x, v, features = (torch.where(mask[..., None], t, 0) for t in (x, v, features))
        state, velocities, query = self.lifting(x, v, features)
        first = None
        for block in self.blocks:
            state = block(state, velocities, query, mask, first)
            first = state if first is None else first
        vectors = state[..., : 3 * self.config.vectors]
        found = torch.stack([head(vectors) for head in self.heads], -1)
        shares = 1.0 if self.gate is None else self.gates(query)[:, None, None, None]
        found = (found * shares).sum(-1)
        return found + start if self.config.displacement else found

    def gates(self, query: Tensor) -> Tensor:
        """(B, heads): shares of the output heads. The mean runs over padding too, as published."""
        return self.gate(query.mean((1, 2))).softmax(-1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
        nn.init.zeros_(module.bias)
