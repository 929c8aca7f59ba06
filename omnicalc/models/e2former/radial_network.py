"""The shared radial network with its slope by the distance, made for the training of forces.

All that the network gives depends on one number per edge, its distance r. So R(r) and R'(r) are found side by side (the
slopes run through the layers beside the values), and a force needs no way back through the network:
dE/dr = sum_o (dE/dR_o) R'_o. The way back by the weights, from values and slopes together, is then the only one, where
differentiating twice would walk through every layer four times.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from omnicalc.kernels.native.edges import silu_pair, silu_pair_backward
from omnicalc.kernels.wanted import wanted


def radial_network(r: Tensor, pair: Tensor, basis: nn.Module, network: nn.Module) -> Tensor:
    """Outputs (E, out) of a :class:`PairRadial` at distances r (E,), for rows ``pair`` (E,) of its table of biases.

    Twice differentiable by r, and by the weights what results from that.
    """
    second, last = network.second, network.last
    weights = (network.first.weight, network.pair_bias, second.weight, second.bias, last.weight, last.bias)
    # views, because the engine tells of them, but not of leaves, whether their gradient is asked for
    return _Network.apply(r, pair, basis, *(w.view_as(w) for w in weights))[0]


class _Network(Function):
    """R (E, out) and R' (E, out)."""

    @staticmethod
    def forward(ctx, r, pair, basis, first, pair_bias, second, second_bias, last, last_bias):
        b = torch.stack(basis.derivatives(r, 1)).to(r.dtype)
        h = _linear(b, first, pair_bias.index_select(0, pair))
        a = silu_pair(h)
        k = _linear(a, second, second_bias)
        c = silu_pair(k)
        out, slope = _linear(c, last, last_bias).unbind()
        ctx.basis = basis
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(r, pair, first, pair_bias, second, last, b, h, a, k, c, slope)
        return out, slope

    @staticmethod
    def backward(ctx, g, g_slope):
        if g is None and g_slope is None:
            return (None,) * 9
        by_r, *by_weights = wanted(ctx)
        rest, found = by_r and g_slope is not None, [None] * 7
        if rest or any(by_weights):
            found = list(_full_backward(ctx, g, g_slope, rest))
        if by_r and g_slope is None:
            found[0] = (g * ctx.saved_tensors[-1]).sum(-1)
        return found[0], None, None, *found[1:]


@torch.autocast("cpu", enabled=False)  # the native loops take numbers of one type
@once_differentiable
def _full_backward(ctx, g, g_slope, by_r: bool):
    """Gradients by r, if asked for, and by the six weights."""
    r, pair, first, pair_bias, second, last, b, h, a, k, c, slope = ctx.saved_tensors
    g = torch.zeros_like(slope) if g is None else g
    g_slope = torch.zeros_like(slope) if g_slope is None else g_slope
    through = torch.empty_like(c)
    for from_, to in ((g, through[0]), (g_slope, through[1])):
        torch.mm(from_, last, out=to)
    d_last = torch.addmm(g_slope.t() @ c[1], g.t(), c[0])
    d_k = silu_pair_backward(k, through)
    d_second = d_k.flatten(0, 1).t() @ a.flatten(0, 1)
    d_h = silu_pair_backward(h, d_k @ second)
    d_first = d_h.flatten(0, 1).t() @ b.flatten(0, 1)
    d_bias = torch.zeros_like(pair_bias).index_add_(0, pair, d_h[0])
    d_r = None
    if by_r:
        d_b = d_h @ first
        curvature = ctx.basis.derivatives(r, 2)[2].to(r.dtype)
        d_r = (d_b[0] * b[1] + d_b[1] * curvature).sum(-1)
    return d_r, d_first, d_bias, d_second, d_k[0].sum(0), d_last, g.sum(0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Values and slopes (2, E, in) -> (2, E, out); a bias has no slope."""
    out = x @ weight.t()
    out[0] += bias
    return out
