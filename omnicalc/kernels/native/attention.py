"""The native attention on tensors of a CPU: the passes of attention.cpp behind the same calls as Triton's."""

from __future__ import annotations

import ctypes
from dataclasses import fields
from functools import cache

import torch
from torch import Tensor

from omnicalc.errors import KernelError
from omnicalc.kernels.edge_lists import FlatEdges
from omnicalc.kernels.native import edges, nodes
from omnicalc.kernels.native.build import ATTENTION
from omnicalc.kernels.native.library import instruction_set, open_library

KINDS = {"softmax": 0, "softplus": 1, "sigmoid": 2}
_MOMENTS, _GRADIENTS, _TANGENT = range(3)
_INPUTS = ("q", "k", "v", "gate", "factor", "step", "unit")
_NUMBERS = (
    "atoms", "heads", "d", "rows", "channels", "kind", "first", "zero", "threads", "gate_stride", "factor_stride",
)  # fmt: skip
_ARRAYS = (
    *_INPUTS, *(f"{name}_t" for name in _INPUTS),
    "begin", "number", "source", "target", "leaving", "edge", "grad", "out",
    *(f"d_{name}" for name in _INPUTS), "alpha", "alpha_t", "pull", "pull_t",
)  # fmt: skip


class _Job(ctypes.Structure):
    """As in attention.cpp."""

    _fields_ = [(n, ctypes.c_int64) for n in _NUMBERS] + [(n, ctypes.c_void_p) for n in _ARRAYS]


@cache
def why_not() -> str | None:
    """Why the kernels of training (here, in edges.py and nodes.py) cannot be used here, or None if they can."""
    try:
        library(), edges.library(), nodes.library()
    except (KernelError, OSError) as error:
        return str(error)
    return None


@cache
def library() -> ctypes.CDLL:
    lib = open_library(instruction_set(ATTENTION), ATTENTION)
    lib.omnicalc_attention.argtypes = [ctypes.POINTER(_Job), ctypes.c_int, ctypes.c_int]
    lib.omnicalc_attention.restype = ctypes.c_int
    return lib


class NativeLaunches:
    """The kernel on one set of the seven inputs of :func:`omnicalc.kernels.fused_attention.fused_attention`, all
    contiguous but for gate and factor, whose edges may lie apart.
    """

    def __init__(self, inputs: list[Tensor], edges: FlatEdges, form):
        self.inputs, self.edges, self.form = inputs, edges, form

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Moments (N, W, rows, C). The other two, which Triton keeps for its backward pass, are empty here."""
        out = self._new_moments()
        self._run(_MOMENTS, out=out)
        return out, out.new_empty(0), out.new_empty(0)

    def backward(self, grad: Tensor, top: Tensor, total: Tensor, direction: list[Tensor] | None = None):
        """The seven gradients, or their tangents along ``direction``; and alpha with its tangent."""
        q, k, v, *per_edge = self.inputs
        gradients = [torch.empty_like(x) for x in (q, k, v)] + [torch.zeros(x.shape, dtype=x.dtype) for x in per_edge]
        kept = {n: q.new_empty(len(self.edges.source), q.shape[1]) for n in ("alpha", "pull", "alpha_t", "pull_t")}
        found = {f"d_{name}": g for name, g in zip(_INPUTS, gradients, strict=True)}
        self._run(_GRADIENTS, direction, grad=grad, **found, **kept)
        return tuple(gradients), (kept["alpha"], kept["alpha_t"])

    def tangent_moments(self, direction: list[Tensor], alpha: Tensor, alpha_t: Tensor) -> Tensor:
        """Derivative of the moments along ``direction``."""
        out = self._new_moments()
        self._run(_TANGENT, direction, alpha=alpha, alpha_t=alpha_t, out=out)
        return out

    def _new_moments(self) -> Tensor:
        v = self.inputs[2]
        return v.new_empty(len(v), self.form.width, *v.shape[1:])

    def _run(self, step: int, direction: list[Tensor] | None = None, **arrays: Tensor) -> None:
        q, _, v, gate, factor, *_ = self.inputs
        arrays |= dict(zip(_INPUTS, self.inputs, strict=True))
        arrays |= {f.name: getattr(self.edges, f.name) for f in fields(self.edges)}
        if direction is not None:
            arrays |= {f"{n}_t": x for n, x in zip(_INPUTS, direction, strict=True)}
        job = _Job(
            *(*q.shape, *v.shape[1:], KINDS[self.form.kind], self.form.first, self.form.zero),
            torch.get_num_threads(),
            *(gate.stride(-2), factor.stride(-2)),
            **{name: x.data_ptr() for name, x in arrays.items()},
        )
        if library().omnicalc_attention(job, step, q.dtype == torch.float64):
            raise MemoryError("native attention: no memory left")
