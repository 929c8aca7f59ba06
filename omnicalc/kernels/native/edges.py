"""The loops of edges.cpp on tensors of a CPU: activations with their slopes, and sums of edges at their targets."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor
from torch.autograd import Function

from omnicalc.kernels.native.build import EDGES
from omnicalc.kernels.native.library import instruction_set, open_library


@cache
def library() -> ctypes.CDLL:
    """Raises :class:`KernelError` where there is none."""
    lib = open_library(instruction_set(EDGES), EDGES)
    flag, size, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    lib.omnicalc_silu.argtypes = [flag, flag, size, pointer, pointer, pointer]
    lib.omnicalc_edge_sum.argtypes = [flag, flag, flag, size, size, size, size] + 5 * [pointer]
    lib.omnicalc_silu.restype = lib.omnicalc_edge_sum.restype = None
    return lib


def silu_pair(h: Tensor) -> Tensor:
    """(2, ...), numbers and their slopes by something else -> SiLU of the numbers, and its slopes by the same."""
    out = torch.empty_like(h)
    _silu(h, None, out)
    return out


def silu_pair_backward(h: Tensor, gradient: Tensor) -> Tensor:
    """Gradient (2, ...) by both outputs of :func:`silu_pair` -> gradient by both inputs, not differentiable again."""
    out = torch.empty_like(h)
    _silu(h, gradient, out)
    return out


def _silu(h: Tensor, gradient: Tensor | None, out: Tensor) -> None:
    given = None if gradient is None else gradient.data_ptr()
    wide, threads = h.dtype == torch.float64, torch.get_num_threads()
    library().omnicalc_silu(wide, threads, h.numel() // 2, h.data_ptr(), given, out.data_ptr())


def edge_sum(angular: Tensor, radial: Tensor, begin: Tensor) -> Tensor:
    """sum_e angular[e, row] radial[e, degree of row, c] over the edges begin[i] .. begin[i+1] - 1 of each atom i.

    Shapes: angular (E, rows), radial (E, (l_max+1) * C), begin (N+1,) int64 -> (N, rows, C). It and its derivatives are
    the three contractions of one trilinear form, so that it is differentiable any number of times.
    """
    return _Sum.apply(angular, radial, begin)


class _Sum(Function):
    @staticmethod
    def forward(ctx, a, b, begin):
        ctx.save_for_backward(a, b, begin)
        rows = a.shape[1]
        out = a.new_empty(len(begin) - 1, rows, b.shape[1] // round(rows**0.5))
        return _contract(0, a, b, out, begin, out)

    @staticmethod
    def backward(ctx, g):
        a, b, begin = ctx.saved_tensors
        return _ByAngular.apply(b, g, begin), _ByRadial.apply(a, g, begin), None


class _ByAngular(Function):
    @staticmethod
    def forward(ctx, b, g, begin):
        ctx.save_for_backward(b, g, begin)
        return _contract(1, None, b, g, begin, g.new_empty(len(b), g.shape[1]))

    @staticmethod
    def backward(ctx, a):
        b, g, begin = ctx.saved_tensors
        return _ByRadial.apply(a, g, begin), _Sum.apply(a, b, begin), None


class _ByRadial(Function):
    @staticmethod
    def forward(ctx, a, g, begin):
        ctx.save_for_backward(a, g, begin)
        return _contract(2, a, None, g, begin, g.new_empty(len(a), round(g.shape[1] ** 0.5) * g.shape[2]))

    @staticmethod
    def backward(ctx, b):
        a, g, begin = ctx.saved_tensors
        return _ByAngular.apply(b, g, begin), _Sum.apply(a, b, begin), None


def _contract(step: int, a: Tensor | None, b: Tensor | None, g: Tensor, begin: Tensor, out: Tensor) -> Tensor:
    """``g`` of the shape of the sum, whether it is given or not."""
    if b is not None and b.stride(1) != 1:
        b = b.contiguous()
    a, g = None if a is None else a.contiguous(), g if g is out else g.contiguous()
    pointers = [None if x is None else x.data_ptr() for x in (begin, a, b, g, out)]
    stride = 0 if b is None else b.stride(0)
    library().omnicalc_edge_sum(g.dtype == torch.float64, step, torch.get_num_threads(), *g.shape, stride, *pointers)
    return out
