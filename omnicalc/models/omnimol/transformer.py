"""What jets and molecules share of the point-edge transformer: the local block, the global trunk, the entry-wise head.

Module names are those of the published PET v2 state dicts.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.omnimol.layers import MLP, AttBlock, DynTanh, key_bias, masked_logit, pair_mask
from omnicalc.models.xavier import xavier

_TINY = 1e-12  # added to weights before their logarithm


class LocalBlock(nn.Module):
    """Features of each centre's neighbours -> MLP -> attention among the neighbours -> mean over them."""

    def __init__(self, n_features: int, width: int, hidden: int, heads: int, layers: int, **drops: float):
        super().__init__()
        self.mlp = MLP(n_features, hidden, width, drop=drops.get("mlp_drop", 0.0))
        self.in_blocks = nn.ModuleList(AttBlock(width, heads, **drops) for _ in range(layers))

    def forward(
        self, features: Tensor, keep: Tensor, epsilon: float, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(R, K, F) features of R centres' K neighbours, ``keep`` (R, K) the real ones -> (R, d).

        ``weight`` (R, K) makes it smooth: features are multiplied by it, its logarithm is added to the logits of the
        keys, and the mean becomes sum(w h) / (sum(w) + epsilon). Without it w is 1. ``bias`` (R, H, K, K) is added to
        the logits too. Centres without neighbours get 0.
        """
        real = keep.unsqueeze(-1).to(features.dtype)
        logits = pair_mask(keep, features.dtype)
        if bias is not None:
            logits = logits + bias
        if weight is not None:
            features = features * weight.unsqueeze(-1)
            logits = logits + (weight + _TINY).log()[:, None, None]
        h = self.mlp(features) * real
        for block in self.in_blocks:
            h = block(h, keep, logits)
        share = real if weight is None else real * weight.unsqueeze(-1)
        return (h * share).sum(1) / (share.sum(1) + epsilon)


class Trunk(nn.Module):
    """Learned tokens in front of the entries, attention blocks over all of them, final norm."""

    def __init__(
        self, width: int, layers: int, heads: int, tokens: int, ratio: float = 2, *, skip: bool = False, **drops: float
    ):
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, tokens, width))
        nn.init.trunc_normal_(self.token, std=0.02)
        depth = layers // 2 if skip else layers
        self.in_blocks = nn.ModuleList(AttBlock(width, heads, ratio, **drops) for _ in range(depth))
        if skip:
            self.out_blocks = nn.ModuleList(AttBlock(width, heads, ratio, skip=True, **drops) for _ in range(depth))
        self.norm = DynTanh(width)

    def transform(self, y: Tensor, mask: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, A + M, d) with mask -> (B, T + A + M, d) and its mask; ``bias`` (B, H, M, M) between the last M."""
        tokens = self.token.expand(len(y), -1, -1)
        y = torch.cat([tokens, y], 1)
        mask = F.pad(mask, (tokens.shape[1], 0), value=True)
        logits = pair_mask(mask, y.dtype)
        if bias is not None:
            before = y.shape[1] - bias.shape[-1]
            logits = logits + F.pad(bias, (before, 0, before, 0))
        skips = []
        for block in self.in_blocks:
            y = block(y, mask, logits)
            skips.append(y)
        for block in getattr(self, "out_blocks", ()):
            y = block(y, mask, logits, skips.pop())
        return self.norm(y) * mask.unsqueeze(-1).to(y.dtype), mask


class EntryHead(nn.Module):
    """One output per entry: attention blocks over all, tokens dropped, MLP without norm, Lin (PET's generator).

    ``labels``: with that many rows, a label token goes in front.
    """

    def __init__(
        self, width: int, layers: int, heads: int, n_out: int, ratio: float = 2, *, labels: int | None = None,
        **drops: float,
    ):  # fmt: skip
        super().__init__()
        drop = drops.get("mlp_drop", 0.0)
        if labels is not None:
            embed = MLP(width, int(ratio * width), width, norm=False, drop=drop)
            self.pid_embed = nn.Sequential(nn.Embedding(labels, width), embed)
        self.in_blocks = nn.ModuleList(AttBlock(width, heads, ratio, **drops) for _ in range(layers))
        self.fc = nn.Sequential(MLP(width, int(ratio * width), width, norm=False, drop=drop))
        self.out = xavier(nn.Linear(width, n_out))

    def forward(self, y: Tensor, mask: Tensor, n_entries: int, label: Tensor | None = None) -> Tensor:
        """(B, S, d), mask (B, S) -> (B, n_entries, n_out) of the last entries; ``label`` (B,) where there are any."""
        if label is not None:
            y = torch.cat([self.pid_embed(label).unsqueeze(1), y], 1)
            mask = F.pad(mask, (1, 0), value=True)
            y = y * mask.unsqueeze(-1).to(y.dtype)
        bias = key_bias(mask, y.dtype)
        for block in self.in_blocks:
            y = block(y, mask, bias)
        real = mask[:, -n_entries:].unsqueeze(-1).to(y.dtype)
        return self.out(self.fc(y[:, -n_entries:]) * real) * real


def nearest(distances: Tensor, keep: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of every row, or all if there are fewer columns: index and mask (..., min(k, M)).

    Distances (..., M), ``keep`` (..., M) the columns that may be chosen. In order of distance, ties by column; where
    too few may be chosen the rest of the row is padding (index 0, mask false).
    """
    order = distances.detach().masked_fill(~keep, torch.inf)
    index = order.sort(dim=-1, stable=True).indices[..., :k]
    mask = keep.expand_as(distances).gather(-1, index)
    return index.masked_fill(~mask, 0), mask


__all__ = ["EntryHead", "LocalBlock", "Trunk", "masked_logit", "nearest"]
