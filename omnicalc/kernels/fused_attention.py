"""Attention of E2Former-V2 as one operation, twice differentiable: on Triton kernels, or on native ones on a CPU.

Forces are its first derivatives and training on forces needs its second. Those are the gradients of
<gradients, direction>, which is the tangent of the backward pass along the direction: the same kernels with TANGENT.
"""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from omnicalc.errors import InputError
from omnicalc.kernels.blocks import power_of_two
from omnicalc.kernels.edge_lists import EdgeLists, FlatEdges
from omnicalc.kernels.native.attention import KINDS, NativeLaunches


def available() -> bool:
    """Whether Triton is installed. Looks without importing it."""
    return find_spec("triton") is not None


@dataclass(frozen=True)
class Form:
    """What is computed, apart from the numbers."""

    kind: str = "softmax"  # of attention weights, one of KINDS
    first: bool = True  # moments with the three components of the unit vector
    zero: bool = False  # the plain sum, after those
    storage: torch.dtype | None = None  # of keys and values inside, e.g. torch.bfloat16; None: as given

    @property
    def width(self) -> int:
        return 3 * self.first + self.zero


@dataclass(frozen=True)
class Tile:
    """Block sizes of one launch: edges and heads at a time, and warps."""

    edges: int
    heads: int
    warps: int


def tile(heads: int, d: int, rows: int, dtype: torch.dtype) -> Tile:
    """One tile for all kernels; ``rows`` = (l_max+1)^2 C / H are the values per head.

    One warp needs no barriers, and up to 512 values (16 per thread, in each of at most nine tiles) compile without
    register spills, as the ahead-of-time test checks; more values than that in one head take more warps.
    """
    area = 512 if dtype == torch.float32 else 256
    longest = max(power_of_two(rows), power_of_two(d))
    width = min(power_of_two(heads), max(1, area // longest))
    return Tile(1, width, min(8, max(1, width * longest // area)))


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    factor: Tensor,
    step: Tensor,
    unit: Tensor,
    edges: EdgeLists | FlatEdges,
    form: Form,
) -> Tensor:
    """sum_k alpha[n, k, h(c)] U[n, k, w] v[index[n, k], row, c] with channel c on head c mod H.

    Shapes: q, k (N, H, d), v (N, rows, C), gate, factor (N, K, H), envelope step (N, K), unit (N, K, 3)
    -> (N, W, rows, C), all of one dtype, float32 or float64; with ``FlatEdges.alone`` the four that belong to edges are
    (E, ...). For the weights alpha see
    :mod:`omnicalc.kernels.triton_attention`. The edges choose the kernels: Triton's read ``EdgeLists``, the native ones
    ``FlatEdges``.

    Raises:
        InputError: an unknown kind of weights, mixed or half-precision dtypes, or C that is no multiple of H.
    """
    tensors = {"q": q, "k": k, "v": v, "gate": gate, "factor": factor, "step": step, "unit": unit}
    _check(tensors, form)
    if isinstance(edges, EdgeLists) or not (_even(gate) and _even(factor)):
        gate, factor = gate.contiguous(), factor.contiguous()
    q, k, v, step, unit = (t.contiguous() for t in (q, k, v, step, unit))
    return _Moments.apply(q, k, v, gate, factor, step, unit, edges, form)


def _even(x: Tensor) -> bool:
    """Whether the edges of (..., H) lie at equal distances, each with its heads together: a slice of wider rows."""
    return x.stride(-1) == 1 and (x.ndim == 2 or x.stride(0) == x.shape[1] * x.stride(1))


def _check(tensors: dict[str, Tensor], form: Form) -> None:
    if form.kind not in KINDS:
        raise InputError(f"attention weights '{form.kind}' are not supported; choose one of: {', '.join(KINDS)}")
    dtypes = {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()}
    if set(dtypes.values()) not in ({"float32"}, {"float64"}):
        raise InputError(f"fused attention takes all tensors in float32 or all in float64, not {dtypes}")
    if tensors["v"].shape[2] % tensors["q"].shape[1]:
        raise InputError(f"{tensors['v'].shape[2]} channels are no multiple of {tensors['q'].shape[1]} attention heads")


class _Moments(Function):
    @staticmethod
    def forward(ctx, q, k, v, gate, factor, step, unit, edges, form):
        out, top, total = _launches([q, k, v, gate, factor, step, unit], edges, form).forward()
        ctx.save_for_backward(q, k, v, gate, factor, step, unit, top, total)
        ctx.edges, ctx.form = edges, form
        return out

    @staticmethod
    def backward(ctx, grad):
        *inputs, top, total = ctx.saved_tensors
        return *_Gradients.apply(grad.contiguous(), *inputs, top, total, ctx.edges, ctx.form), None, None


class _Gradients(Function):
    """Gradients by the seven inputs; its own derivative by ``grad`` and by them."""

    @staticmethod
    def forward(ctx, grad, q, k, v, gate, factor, step, unit, top, total, edges, form):
        ctx.save_for_backward(grad, q, k, v, gate, factor, step, unit, top, total)
        ctx.edges, ctx.form = edges, form
        inputs = [q, k, v, gate, factor, step, unit]
        gradients, _ = _launches(inputs, edges, form).backward(grad, top, total)
        return gradients

    @staticmethod
    @once_differentiable
    def backward(ctx, *direction):
        grad, *inputs, top, total = ctx.saved_tensors
        launches = _launches(inputs, ctx.edges, ctx.form)
        direction = [t.contiguous() for t in direction]
        gradients, weights = launches.backward(grad, top, total, direction)
        return launches.tangent_moments(direction, *weights), *gradients, None, None, None, None


def _launches(inputs: list[Tensor], edges: EdgeLists | FlatEdges, form: Form):
    kind = NativeLaunches if isinstance(edges, FlatEdges) else Launches
    return kind(inputs, edges, form)


class Launches:
    """The Triton kernels on one set of the seven inputs, contiguous; keys and values are stored as the form says."""

    def __init__(self, inputs: list[Tensor], edges: EdgeLists, form: Form):
        from omnicalc.kernels import triton_attention

        self.kernels = triton_attention
        q, k, v, *rest = inputs
        self.inputs = [q, k, v, *rest] if form.storage is None else [q, k.to(form.storage), v.to(form.storage), *rest]
        self.edges, self.form = edges, form
        self.n, self.heads, d = inputs[0].shape
        self.shape = inputs[2].shape
        self.k = edges.source.shape[1]
        rows = self.shape[1] * self.shape[2] // self.heads
        self.tile = tile(self.heads, d, rows, inputs[0].dtype)
        self.sizes = sizes(self.heads, d, rows, form, inputs[0].dtype)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        out = self._new(self.n, self.form.width, *self.shape[1:])
        top, total = self._new(self.n, self.heads), self._new(self.n, self.heads)
        edges = (self.edges.source, self.edges.count)
        self.launch("forward", *self.inputs, *edges, out, top, total, self.k)
        return out, top, total

    def backward(self, grad: Tensor, top: Tensor, total: Tensor, direction: list[Tensor] | None = None):
        """The seven gradients, or their tangents along ``direction``; and alpha with its tangent."""
        q, k, v, gate, factor, step, unit = self.inputs
        parts = -(-self.heads // self.tile.heads)
        d_q, d_k, d_v = self._new(*q.shape), self._new(*k.shape), self._new(*v.shape)
        d_gate, d_factor = torch.zeros_like(gate), torch.zeros_like(factor)  # slots that are padding stay zero
        d_step, d_unit = step.new_zeros(parts, *step.shape), unit.new_zeros(parts, *unit.shape)
        alpha, pull = torch.empty_like(gate), torch.empty_like(gate)
        tangent = direction is not None
        alpha_t, pull_t = (torch.empty_like(gate), torch.empty_like(gate)) if tangent else (None, None)
        kept, kept_t = alpha, alpha_t  # not used but by softmax
        if self.form.kind == "softmax":
            kept, kept_t = (gate.new_empty(2, *gate.shape) if wanted else None for wanted in (True, tangent))
        direction = direction if tangent else [None] * 7
        edges, out = (self.edges.source, self.edges.count), (d_q, d_gate, d_factor, d_step, d_unit)
        self.launch(
            "backward_target", *self.inputs, *edges, top, total, grad, *direction, *out, alpha, alpha_t, pull, pull_t,
            kept, kept_t, self.n, self.k, TANGENT=tangent,
        )  # fmt: skip
        self.launch(
            "backward_source", q, unit, grad, alpha, pull, direction[0], direction[6], alpha_t, pull_t,
            self.edges.pointer, self.edges.edge, d_k, d_v, self.k, TANGENT=tangent,
        )  # fmt: skip
        return (d_q, d_k, d_v, d_gate, d_factor, d_step.sum(0), d_unit.sum(0)), (alpha, alpha_t)

    def tangent_moments(self, direction: list[Tensor], alpha: Tensor, alpha_t: Tensor) -> Tensor:
        """Derivative of the moments along ``direction``."""
        out = self._new(self.n, self.form.width, *self.shape[1:])
        edges = (self.edges.source, self.edges.count)
        v, unit = self.inputs[2], self.inputs[6]
        arguments = (v, unit, alpha, direction[2], direction[6], alpha_t, *edges, out, self.k)
        self.launch("tangent_moments", *arguments)
        return out

    def _new(self, *shape) -> Tensor:
        return self.inputs[0].new_empty(shape)

    def launch(self, name: str, *arguments, **constants) -> None:
        kernel, tile = getattr(self.kernels, name), self.tile
        constants |= self.sizes | {"BK": tile.edges, "BH": tile.heads}
        wanted = {key: value for key, value in constants.items() if key in kernel.arg_names}
        grid = (self.n, -(-self.heads // tile.heads))
        if self.n == 0:
            return
        with torch.cuda.device_of(self.inputs[0]):
            # Threads that hold the same score must round it alike, for the maximum is found by comparing: with products
            # fused into sums across threads, a + b c would be one number on one of them and c b + a another.
            kernel[grid](*arguments, **wanted, num_warps=tile.warps, enable_fp_fusion=False)


def sizes(heads: int, d: int, rows: int, form: Form, dtype: torch.dtype) -> dict:
    """The compile-time constants of the kernels, apart from the tile; ``rows`` as in :func:`tile`."""
    import triton.language as tl

    return {
        "SCALE": d**-0.5,
        "H": heads,
        "D": d,
        "P": rows,
        "KIND": KINDS[form.kind],
        "FIRST": form.first,
        "ZERO": form.zero,
        "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
        "BD": power_of_two(d),
        "BP": power_of_two(rows),
    }
