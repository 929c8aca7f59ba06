"""The sum over neighbours at the heart of attention, in blocks that stay in a CPU's cache.

One trilinear form underlies it and all its derivatives:

    T(P, V, G) = sum_{n,k,h,w,a} P[n,h,w,k] V[index[n,k],h,a] G[n,h,w,a]

P are weights, V values of the source atoms, G belongs to the target. The derivative of T by any one argument is a
contraction of the other two, and each of the three contractions has the other two as its derivatives, so that forces
and the training of forces (second derivatives) run on the same three loops. Values gathered per neighbour, which are
far larger than all else, exist for one block of atoms at a time.
"""

import torch
from torch import Tensor
from torch.autograd import Function

_BLOCK_BYTES = 1 << 21  # of gathered values: small beside a last-level cache, large beside the cost of a call


def aggregate(weights: Tensor, value: Tensor, index: Tensor) -> Tensor:
    """sum_k weights[n, h(c), w, k] value[index[n, k], row, c] with attention head h(c) = c mod H.

    Shapes: weights (N, H, W, K), value (N, rows, C), index (N, K) int64 -> (N, W, rows, C).
    """
    n, heads, width, _ = weights.shape
    rows, channels = value.shape[1:]
    per_head = value.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2).reshape(n, heads, -1)
    out = _Target.apply(weights, per_head, index)
    out = out.view(n, heads, width, rows, channels // heads)
    return out.permute(0, 2, 3, 4, 1).reshape(n, width, rows, channels)


class _Target(Function):
    """dT/dG: (N, H, W, K), (N, H, A) -> (N, H, W, A)."""

    @staticmethod
    def forward(ctx, p, v, index):
        ctx.save_for_backward(p, v, index)
        out = p.new_empty(*p.shape[:3], v.shape[-1])
        for block, gathered in _blocks(v, index):
            torch.bmm(_merge(p[block]), gathered, out=_merge(out[block]))
        return out

    @staticmethod
    def backward(ctx, g):
        p, v, index = ctx.saved_tensors
        need_p, need_v, _ = ctx.needs_input_grad
        return (
            _Edge.apply(v, g, index) if need_p else None,
            _Source.apply(p, g, index) if need_v else None,
            None,
        )


class _Edge(Function):
    """dT/dP: (N, H, A), (N, H, W, A) -> (N, H, W, K)."""

    @staticmethod
    def forward(ctx, v, g, index):
        ctx.save_for_backward(v, g, index)
        g = g.contiguous()
        out = g.new_empty(*g.shape[:3], index.shape[1])
        for block, gathered in _blocks(v, index):
            torch.bmm(_merge(g[block]), gathered.transpose(1, 2), out=_merge(out[block]))
        return out

    @staticmethod
    def backward(ctx, p):
        v, g, index = ctx.saved_tensors
        need_v, need_g, _ = ctx.needs_input_grad
        return (
            _Source.apply(p, g, index) if need_v else None,
            _Target.apply(p, v, index) if need_g else None,
            None,
        )


class _Source(Function):
    """dT/dV: (N, H, W, K), (N, H, W, A) -> (N, H, A), gathered at the source atoms."""

    @staticmethod
    def forward(ctx, p, g, index):
        ctx.save_for_backward(p, g, index)
        g = g.contiguous()
        n, heads, _, width = g.shape
        out = g.new_zeros(n * heads, width)
        for block in _ranges(n, heads * width * index.shape[1] * g.element_size()):
            edges = torch.bmm(_merge(p[block]).transpose(1, 2), _merge(g[block])).flatten(0, 1)
            lanes = _lanes(index[block], heads)
            out.scatter_add_(0, lanes.unsqueeze(1).expand_as(edges), edges)
        return out.view(n, heads, width)

    @staticmethod
    def backward(ctx, v):
        p, g, index = ctx.saved_tensors
        need_p, need_g, _ = ctx.needs_input_grad
        return (
            _Edge.apply(v, g, index) if need_p else None,
            _Target.apply(p, v, index) if need_g else None,
            None,
        )


def _blocks(v: Tensor, index: Tensor):
    """Slices of target atoms with their gathered values (n * H, K, A)."""
    n, heads, width = v.shape
    table, k = v.reshape(n * heads, width), index.shape[1]
    for block in _ranges(len(index), heads * width * k * v.element_size()):
        lanes = _lanes(index[block], heads)
        yield block, table.index_select(0, lanes).view(len(index[block]) * heads, k, width)


def _ranges(n: int, bytes_per_atom: int):
    size = max(1, _BLOCK_BYTES // max(1, bytes_per_atom))
    return [slice(first, first + size) for first in range(0, n, size)]


def _lanes(index: Tensor, heads: int) -> Tensor:
    """Row of (source atom, head) in a table of N * H rows, ordered (target, head, slot)."""
    lane = torch.arange(heads, device=index.device).unsqueeze(1)
    return (index.unsqueeze(1) * heads + lane).flatten()


def _merge(x: Tensor) -> Tensor:
    """(n, H, ...) -> (n * H, ...)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
