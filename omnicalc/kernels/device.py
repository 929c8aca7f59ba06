"""Launches of the Triton kernels that energies and forces are made of, on tensors that the caller owns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omnicalc.kernels.blocks import power_of_two
from omnicalc.kernels.native.attention import KINDS

HEADS = 32  # of one program of the attention: one warp
WIDE = 2  # heads per thread where 16-bit numbers are gathered, to load as much at a time
CHANNELS = 128  # of one program of the first features' gradient, as far as there are parts


@dataclass(frozen=True)
class Near:
    """Edges within the cutoff, packed to the left of N rows of slots, and the same by source."""

    source: Tensor  # (N, slots) int32
    count: Tensor  # (N,) int32
    unit: Tensor  # (N, slots, 3)
    distance: Tensor  # (N, slots) Å
    step: Tensor  # (N, slots) envelope
    step_slope: Tensor  # (N, slots) 1/Å
    row: Tensor  # (N, slots) int32, row of the spline tables
    fraction: Tensor  # (N, slots)
    leaving: Tensor  # (N, slots) int32, edges i * slots + slot by source
    leaving_count: Tensor  # (N,) int32

    @property
    def shape(self) -> torch.Size:
        return self.source.shape


def near_edges(
    positions: Tensor, kind: Tensor, rows, *, cutoff: float, cap: int | None, envelope: str, points: int, kinds: int,
    dtype: torch.dtype,
) -> Near:  # fmt: skip
    """The edges of ``positions`` (N, 3) float64 among those of a list with a skin (:class:`SkinRows`).

    ``kind`` (N,) int32: element of each atom, of ``kinds``; ``points``: rows of a spline table per pair of elements.
    """
    from omnicalc.kernels import triton_edges

    n, slots = rows.source.shape
    whole = {"dtype": torch.int32, "device": positions.device}
    real = {"dtype": dtype, "device": positions.device}
    place = torch.empty(n, slots, **whole)
    near = Near(
        source=torch.empty(n, slots, **whole),
        count=torch.empty(n, **whole),
        unit=torch.empty(n, slots, 3, **real),
        distance=torch.empty(n, slots, **real),
        step=torch.empty(n, slots, **real),
        step_slope=torch.empty(n, slots, **real),
        row=torch.empty(n, slots, **whole),
        fraction=torch.empty(n, slots, **real),
        leaving=torch.empty(n, slots, **whole),
        leaving_count=torch.empty(n, **whole),
    )
    block = max(16, power_of_two(slots))
    spacing = cutoff / (points - 3)
    squares = None if cap is None else torch.empty(n, slots, dtype=torch.float64, device=positions.device)
    triton_edges.near_edges[n,](
        positions, kind, rows.source, rows.offset, near.source, place, near.count, near.unit, near.distance, near.step,
        near.step_slope, near.row, near.fraction, squares, slots, kinds, points, CUTOFF=cutoff, SPACING=spacing,
        CAP=cap or 0, ENVELOPE=5 if envelope == "poly5" else 7, ACC=triton_type(dtype), BS=block, num_warps=4,
    )  # fmt: skip
    triton_edges.leaving_edges[n,](
        rows.source, rows.reverse, place, near.leaving, near.leaving_count, slots, BS=block, num_warps=1
    )
    return near


def edge_forces(near: Near, d_distance: Tensor, d_unit: Tensor) -> tuple[Tensor, Tensor]:
    """Forces (N, 3) and virials (N, 3, 3), float64, from gradients by distances (parts, N, slots) and unit vectors."""
    from omnicalc.kernels import triton_edges

    n, slots = near.shape
    forces, virial = (torch.empty(n, *size, dtype=torch.float64, device=d_unit.device) for size in ((3,), (3, 3)))
    triton_edges.edge_forces[n,](
        near.unit, near.distance, near.count, near.leaving, near.leaving_count, d_distance, d_unit, forces, virial, n,
        slots, PARTS=len(d_distance), BS=max(16, power_of_two(slots)), num_warps=2,
    )  # fmt: skip
    return forces, virial


def embed(near: Near, table: Tensor, channels: int, l_max: int) -> Tensor:
    """First features (N, (l_max+1)^2, C) from splines ``table`` (pairs * points, (l_max+1) C)."""
    from omnicalc.kernels import triton_edges

    n, slots = near.shape
    out = table.new_empty(n, (l_max + 1) ** 2, channels)
    block = min(128, power_of_two(channels))
    triton_edges.embed[n, -(-channels // block)](
        table, near.count, near.unit, near.row, near.fraction, out, slots,
        C=channels, TWO=l_max == 2, ACC=triton_type(table.dtype), BC=block, num_warps=max(1, block // 32),
    )  # fmt: skip
    return out


def embed_backward(
    near: Near, table: Tensor, grad: Tensor, d_distance: Tensor, d_unit: Tensor, inverse_width: float
) -> None:
    """Adds what the gradient by the first features gives to those by distances (parts, N, slots) and unit vectors."""
    from omnicalc.kernels import triton_edges

    n, slots = near.shape
    rows, channels = grad.shape[1:]
    block = max(power_of_two(-(-channels // len(d_distance))), min(CHANNELS, power_of_two(channels)))
    triton_edges.embed_backward[n, -(-channels // block)](
        table, near.count, near.unit, near.row, near.fraction, grad, d_distance, d_unit, n, slots,
        INVERSE=inverse_width, C=channels, TWO=rows == 9, ACC=triton_type(table.dtype), BC=block,
        num_warps=max(1, block // 128),
    )  # fmt: skip


def parts(heads: int) -> int:
    """In how many parts the gradients by an edge's geometry are made."""
    return -(-heads // min(HEADS, power_of_two(heads)))


@dataclass(frozen=True)
class Coupling:
    """What one block forms of its values: which moments, and rows out = T moments."""

    first: bool
    zero: bool
    matrix: tuple[float, ...]  # T (rows out, W, rows), row by row
    rows: int  # out


class Moments:
    """Attention of one network on the edges of one step; keys and queries are (N, d, H), values (N, rows, C).

    These, the coupled moments, and the gradients by all of them may be stored in 16 bits; what is kept per edge, of the
    softmax, and of the geometry is of type ``dtype``, in which all sums are made.
    """

    def __init__(self, near: Near, kind: str, heads: int, d: int, inverse_width: float, dtype: torch.dtype):
        self.near, self.inverse_width, self.heads, self.d = near, inverse_width, heads, d
        self.kind = KINDS[kind]
        self.real = {"dtype": dtype, "device": near.unit.device}

    def _options(self, v: Tensor, coupling: Coupling, block: int) -> dict:
        per_head = v.shape[2] // self.heads
        return {
            "H": self.heads, "D": self.d, "P": v.shape[1] * per_head, "CH": per_head, "OUT": coupling.rows,
            "T": coupling.matrix, "FIRST": coupling.first, "ZERO": coupling.zero, "BH": block, "num_warps": 1,
            "ACC": triton_type(self.real["dtype"]),
        }  # fmt: skip

    def _launch(self, v: Tensor, coupling: Coupling, wide: int = 1) -> tuple[tuple[int, int], dict]:
        """Grid and options, with ``wide`` heads per thread."""
        block = min(wide * HEADS, power_of_two(self.heads))
        return (len(v), -(-self.heads // block)), self._options(v, coupling, block)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, coupling: Coupling):
        """Coupled moments (N, rows out, C) as v is stored, and what the way back needs of the softmax, each (N, H)."""
        from omnicalc.kernels import triton_moments

        near, (n, slots) = self.near, self.near.shape
        out = v.new_empty(n, coupling.rows, v.shape[2])
        top, total, ties = (torch.empty(n, self.heads, **self.real) for _ in range(3))
        softmax = (top, total, top.new_empty(top.shape, dtype=torch.int32), ties)
        grid, options = self._launch(v, coupling, WIDE if v.element_size() == 2 else 1)
        triton_moments.attend[grid](
            q, k, v, table, near.source, near.count, near.row, near.fraction, near.step, near.unit, out, *softmax,
            slots, KIND=self.kind, **options,
        )  # fmt: skip
        return out, softmax

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, coupling: Coupling, out: Tensor | None,
        softmax: tuple[Tensor, ...], grad: Tensor, d_q: Tensor, d_k: Tensor, d_distance: Tensor, d_unit: Tensor,
    ) -> Tensor:  # fmt: skip
        """Gradient by v; those by q and k are written, and those by the geometry added, to what is given for them.

        ``out``, ``softmax``: what :meth:`forward` gave; ``out`` may be None for weights that are no softmax.
        """
        from omnicalc.kernels import triton_moments

        near, (n, slots) = self.near, self.near.shape
        d_v = torch.empty_like(v)
        alpha, pull = (torch.empty(n, slots, self.heads, **self.real) for _ in range(2))
        grid, options = self._launch(v, coupling)
        triton_moments.attend_backward[grid](
            q, k, v, table, near.source, near.count, near.row, near.fraction, near.step, near.step_slope, near.unit,
            grad if out is None else out, *softmax, grad, d_q, d_distance, d_unit, alpha, pull, n, slots,
            KIND=self.kind, INVERSE=self.inverse_width, **options,
        )  # fmt: skip
        grid, options = self._launch(v, coupling, WIDE if grad.element_size() == 2 else 1)
        triton_moments.attend_backward_source[grid](
            q, near.unit, grad, alpha, pull, near.leaving, near.leaving_count, d_k, d_v, slots, **options
        )
        return d_v


def triton_type(dtype: torch.dtype):
    """What a network of this type computes with in the kernels."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32
