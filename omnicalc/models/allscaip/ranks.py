"""Soft ranks: how many candidates are nearer than one, counted so that the count is smooth in the distances.

    rank(r) = sum over candidates c of b((r - r_c) / s),

with b a step that is smeared over a few s: ``bump``, exactly 0 and 1 beyond 4 s, or the logistic ``sigmoid``. The sum
over rows times candidates is never stored: the backward pass computes the slopes anew, in pieces, and is itself
differentiable.
"""

import torch
from torch import Tensor

_PIECE = 1 << 21  # elements of rows x candidates that are computed at a time


def soft_ranks(row: Tensor, candidate: Tensor, scale: float, kind: str) -> Tensor:
    """Ranks (N, R) of distances ``row`` (N, R) among ``candidate`` (N, C), both Å; ``kind`` "bump" or "sigmoid"."""
    return _Ranks.apply(row, candidate, scale, kind)


class _Ranks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, row: Tensor, candidate: Tensor, scale: float, kind: str) -> Tensor:
        ctx.save_for_backward(row, candidate)
        ctx.scale, ctx.kind = scale, kind
        step = STEPS[kind]
        pieces = _pieces(row, candidate)
        return torch.cat([step(_differences(r, c, scale)).sum(-1) for r, c in pieces])

    @staticmethod
    def backward(ctx, gradient: Tensor):
        row, candidate = ctx.saved_tensors
        rows, candidates = [], []
        for r, c, g in _pieces(row, candidate, gradient):
            slope = SLOPES[ctx.kind](_differences(r, c, ctx.scale)) / ctx.scale
            rows.append(g * slope.sum(-1))
            candidates.append(-torch.einsum("nr,nrc->nc", g, slope))
        return torch.cat(rows), torch.cat(candidates), None, None


def _pieces(*tensors: Tensor):
    """The tensors in pieces of so many atoms that rows times candidates stay below ``_PIECE`` elements."""
    each = max(1, _PIECE // max(1, tensors[0].shape[1] * tensors[1].shape[1]))
    return zip(*(t.split(each) for t in tensors), strict=True)


def _differences(row: Tensor, candidate: Tensor, scale: float) -> Tensor:
    return (row.unsqueeze(2) - candidate.unsqueeze(1)) / scale


def bump(x: Tensor) -> Tensor:
    """sigmoid(x / (1 - x²/16)) within 4 of zero, 0 or 1 beyond: the release's bump in another form."""
    inside = x.abs() < 4
    y = torch.where(inside, x, 0.0)
    return torch.where(inside, torch.sigmoid(y / (1 - y * y / 16)), (x > 0).to(x.dtype))


def _bump_slope(x: Tensor) -> Tensor:
    inside = x.abs() < 4
    y = torch.where(inside, x, 0.0)
    square = y * y / 16
    step = torch.sigmoid(y / (1 - square))
    return torch.where(inside, step * (1 - step) * (1 + square) / (1 - square).square(), 0.0)


def _sigmoid_slope(x: Tensor) -> Tensor:
    step = torch.sigmoid(x)
    return step * (1 - step)


STEPS = {"bump": bump, "sigmoid": torch.sigmoid}
SLOPES = {"bump": _bump_slope, "sigmoid": _sigmoid_slope}
