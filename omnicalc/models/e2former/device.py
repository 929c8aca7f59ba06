"""E2Former-V2 on a GPU for energies and forces: Triton kernels and matrix products, with the gradient written out.

What ``native.py`` is for CPUs. Radial networks are splines, neighbouring linear maps are multiplied together, nothing
is traced: the way back is one function per block beside its way there. So the whole step has fixed shapes between two
searches for neighbours, and is recorded once as a CUDA graph and replayed (:mod:`omnicalc.kernels.recorded`).

Float32 throughout; matrix products follow torch's own switch for TF32 (``torch.set_float32_matmul_precision("high")``),
geometry never does. With a 16-bit type for the maps, matrix products run in it and sum in float32, and all that they
read and write per atom is stored in it: half the bytes. (Where cuBLAS splits a sum, its parts follow torch's switches
``torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction`` and ``.._bf16_..``.) Float32 stay the features
that blocks add to and the gradient by them, scales of norms, softmax, splines, all that belongs to edges, the energies,
and sums inside kernels.
"""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from omnicalc.errors import InputError, KernelError
from omnicalc.kernels.blocks import power_of_two
from omnicalc.kernels.device import triton_type
from omnicalc.kernels.fused_attention import available
from omnicalc.models.e2former.device_weights import BlockWeights, NormWeights
from omnicalc.models.e2former.model import E2Former
from omnicalc.models.e2former.native import beyond_kernels
from omnicalc.models.e2former.radial_tables import RadialTables, nearest_distances, pair_functions, tables_within
from omnicalc.neighbor_list import SkinRows
from omnicalc.systems import Systems

DEGREE = 3  # of the splines
INTERVALS = 1024
_SPARE = 0.92  # of free memory that a step may plan with


def unsupported(config) -> str | None:
    """Why the kernels cannot run such a network, or None if they can."""
    if not available():
        return "running without Triton (pip install triton)"
    return beyond_kernels(config)


class DeviceModel:
    """One network with its elements, laid out for the kernels. The weights are those of the moment it is made."""

    instructions = "triton"

    def __init__(self, model: E2Former, numbers: list[int], maps: torch.dtype | None = None):
        """``numbers``: atomic numbers it will see; ``maps``: type of the linear maps and of what they read and write,
        float16 or bfloat16; None: the model's."""
        reason = unsupported(model.config)
        if reason:
            raise KernelError(f"the kernels of the GPU do not support {reason}")
        parameter = next(model.parameters())
        self.device, self.dtype, self.maps = parameter.device, parameter.dtype, maps or parameter.dtype
        exact = copy.deepcopy(model).double().cpu().requires_grad_(False)
        self.config, self.numbers = model.config, list(numbers)
        functions, nearest = pair_functions(exact, self.numbers), nearest_distances(self.numbers)
        cutoff = model.config.cutoff
        self.tables: RadialTables = tables_within(functions, cutoff, nearest, degree=DEGREE, intervals=INTERVALS)
        points = torch.from_numpy(self.tables.points)
        self.points = points.shape[1]
        self.inverse_width = self.tables.intervals / cutoff
        width = (model.config.l_max + 1) * model.config.channels
        gates = points[..., width:].split(2 * model.config.attention_heads, -1)
        self.table = self._put(points[..., :width].flatten(0, 1))
        self.blocks = [
            BlockWeights(b, model.config, self._put(g.flatten(0, 1)), self._put, self._put_map)
            for b, g in zip(exact.blocks, gates, strict=True)
        ]
        self.norm = NormWeights(exact.norm_final, self._put)
        self.heads = copy.deepcopy(exact.energy_heads).to(self.device, self.dtype)
        self._embedding = exact.system_embedding
        self._row = torch.full((119,), -1, dtype=torch.int32)
        self._row[torch.tensor(self.numbers)] = torch.arange(len(self.numbers), dtype=torch.int32)
        self.token = self.core = None
        if model.config.type_embedding:
            self.token = self._put(exact.type_embedding(exact.element_row[torch.tensor(self.numbers)]))
        if model.config.cores:
            rows = exact.element_row[torch.tensor(self.numbers)]
            self.core = self._put(exact.core.radius[rows[:, None], rows])

    def _put(self, x: Tensor) -> Tensor:
        return x.detach().to(self.device, self.dtype).contiguous()

    def _put_map(self, x: Tensor) -> Tensor:
        return x.detach().to(self.device, self.maps).contiguous()

    def knows(self, numbers: list[int]) -> bool:
        """Whether these atomic numbers are among those it was made for."""
        return set(numbers) <= set(self.numbers)

    def prepare(self, systems: Systems, head: Tensor) -> "Prepared":
        """What does not change while atoms move: elements, structures, heads (S,) and their embeddings."""
        on_host = SimpleNamespace(charge=systems.charge.cpu(), spin=systems.spin.cpu(), head=head.cpu())
        shift = self._embedding(on_host)
        kind = self._row.to(systems.device)[systems.numbers]
        return Prepared(self, kind, systems.system, head, None if shift is None else self._put(shift))


@dataclass
class _Kept:
    """What the way back of one block needs; 16-bit where the maps are, but features, scales and softmax."""

    before: Tensor  # features that entered
    between: Tensor | None = None  # features between attention and feed-forward; None: to be made again
    scale: Tensor | None = None
    ab: Tensor | None = None
    hidden: Tensor | None = None
    q: Tensor | None = None
    k: Tensor | None = None
    value: Tensor | None = None
    coupled: Tensor | None = None  # for softmax alone
    softmax: tuple[Tensor, ...] = ()
    scale_ffn: Tensor | None = None
    gate: Tensor | None = None
    u: Tensor | None = None


@dataclass
class _More:
    """What is to be added to features (N, rows, C), and to their scalars."""

    features: Tensor
    bias: Tensor  # (C,)


class Prepared:
    """The network with one fixed batch of atoms."""

    def __init__(self, model: DeviceModel, kind: Tensor, system: Tensor, head: Tensor, shift: Tensor | None):
        self.model, self.kind, self.system, self.shift = model, kind, system, shift
        names, asked = list(model.heads), head.tolist()
        self.heads = {names[k]: None if len(set(asked)) == 1 else (head == k)[system] for k in set(asked)}
        config = model.config
        self.rows = (config.l_max + 1) ** 2
        self._acc = {"ACC": triton_type(model.dtype)}
        self._sizes = {"C": config.channels, "BC": power_of_two(config.channels), **self._acc}
        self.recompute: bool | None = None  # blocks on the way back; None: where memory needs it

    def bytes_needed(self, slots: int, recompute: bool) -> int:
        """What energies and forces take at the most, beside the list of neighbours with ``slots`` per atom."""
        c, config = self.model.config.channels, self.model.config
        f, heads = config.attention_heads * config.query_width // 2, config.attention_heads
        features, exact, maps = self.rows * c, self.model.dtype.itemsize, self.model.maps.itemsize
        kept = exact * (2 * features + 5 * heads)
        kept += maps * ((2 * self.rows + config.l_max) * c + (4 * self.rows + 6) * f)
        if config.weights == "softmax":
            kept += maps * max(block.coupling.rows for block in self.model.blocks) * c
        blocks = kept + exact * features * config.layers if recompute else kept * config.layers
        passing = exact * (2 * c + features + slots * (2 * heads + 16)) + maps * (2 * features + 20 * c + 4 * f)
        if maps != exact:
            passing += maps * features  # the rounded gradient by the features
        return (blocks + passing) * len(self.kind)

    def _plan(self, slots: int) -> None:
        """Decide about ``recompute``; :class:`InputError` where memory is not enough either way."""
        if self.recompute is not None:
            return
        if self.kind.device.type != "cuda":
            self.recompute = False
            return
        own = torch.cuda.memory_reserved(self.kind.device) - torch.cuda.memory_allocated(self.kind.device)
        free = _SPARE * (torch.cuda.mem_get_info(self.kind.device)[0] + own)
        self.recompute = self.bytes_needed(slots, False) > free
        needed = self.bytes_needed(slots, True)
        if self.recompute and needed > free:
            raise InputError(
                f"{len(self.kind)} atoms need about {needed / 2**30:.1f} GiB of the GPU's memory even when blocks are "
                f"computed again on the way back, and {free / 2**30:.1f} GiB are free; take fewer atoms, smaller "
                "weights (omnicalc models), or the CPU (--device cpu)"
            )

    def __call__(self, positions: Tensor, rows: SkinRows, *, forces: bool) -> tuple[Tensor, ...]:
        """Energies (N,) without references, forces (N, 3) and virials (N, 3, 3) of the atoms, float64, eV and Å."""
        with torch.cuda.device_of(positions):  # kernels are launched on the current GPU, whatever their tensors are on
            return self._computed(positions, rows, forces)

    def _computed(self, positions: Tensor, rows: SkinRows, forces: bool) -> tuple[Tensor, ...]:
        from omnicalc.kernels import device
        from omnicalc.kernels.device import Moments

        self._plan(rows.source.shape[1])
        model, config = self.model, self.model.config
        near = device.near_edges(
            positions, self.kind, rows, cutoff=config.cutoff, cap=config.max_neighbors, envelope=config.envelope,
            points=model.points, kinds=len(model.numbers), dtype=model.dtype,
        )  # fmt: skip
        heads = config.attention_heads
        moments = Moments(near, config.weights, heads, config.query_width, model.inverse_width, model.dtype)
        x, more = device.embed(near, model.table, config.channels, config.l_max), None
        if model.token is not None:
            x[:, 0] += model.token[self.kind]
        kept = []
        for weights in model.blocks:
            x, more, keep = self._block(x, more, weights, moments)
            kept.append(_Kept(keep.before) if self.recompute else keep)
        x, y, scale = self._norm(x, more, model.norm, None, model.dtype)
        energies, d_scalars = self._energies(y[:, 0], forces)
        parts = device.parts(heads)
        d_distance, d_unit = (t.new_zeros(parts, *t.shape) for t in (near.distance, near.unit))
        if model.core is not None:
            energies = energies + self._cores(near, d_distance[0])
        if not forces:
            return energies, None, None
        d_y = torch.zeros_like(y)
        d_y[:, 0] = d_scalars
        d_x = torch.empty_like(x)
        rounded = d_x if model.maps == model.dtype else torch.empty_like(d_x, dtype=model.maps)
        self._norm_backward(x, model.norm, scale, d_y, d_x, rounded, add=False)
        del x, more, y, d_y  # memory that the blocks' way back does not need
        for weights in reversed(model.blocks):
            keep = kept.pop()
            if keep.between is None:
                *_, keep = self._block(keep.before, None, weights, moments)
            self._block_backward(d_x, rounded, keep, weights, moments, d_distance, d_unit)
        device.embed_backward(near, model.table, d_x, d_distance, d_unit, model.inverse_width)
        return energies, *device.edge_forces(near, d_distance, d_unit)

    def _block(self, x: Tensor, more: "_More | None", w: BlockWeights, moments) -> tuple[Tensor, "_More", _Kept]:
        """Features x, and what is still to be added to them, -> the same behind the block."""
        from omnicalc.kernels import triton_nodes as kernels

        n, config = len(x), self.model.config
        x, y, scale = self._norm(x, more, w.norm_attention, self.shift, self.model.maps)
        keep = _Kept(x, scale=scale)
        f = w.products_bias.shape[1]
        keep.ab = y.new_empty(n, self.rows, 4 * f)
        torch.bmm(y.transpose(0, 1), w.products, out=keep.ab.transpose(0, 1))
        degrees = config.l_max + 1
        t = y.new_empty(2, n, degrees * f)
        kernels.products[n, 2](
            keep.ab, w.products_bias, t, n, F=f, DEGREES=degrees, BF=power_of_two(f), num_warps=_warps(f), **self._acc
        )
        keep.hidden = torch.baddbmm(w.first_bias, t, w.first)
        z = torch.empty_like(keep.hidden)
        kernels.layernorm_silu[2 * n,](
            keep.hidden, w.gamma, w.beta, z, n, F=f, BF=power_of_two(f), num_warps=_warps(f), **self._acc
        )
        keep.q, keep.k = torch.baddbmm(w.last_bias, z, w.last)
        keep.value = torch.empty_like(y)
        torch.bmm(y.transpose(0, 1), w.value, out=keep.value.transpose(0, 1))
        keep.value[:, 0] += w.value_bias
        del y, t, z
        coupled, keep.softmax = moments.forward(keep.q, keep.k, keep.value, w.gates, w.coupling)
        if config.weights == "softmax":
            keep.coupled = coupled
        found = torch.empty_like(keep.value)
        for (to, of, paths), matrix in zip(w.parts, w.mix, strict=True):
            part = coupled[:, of].unflatten(1, (-1, paths)).flatten(2)
            torch.bmm(part.transpose(0, 1), matrix, out=found[:, to].transpose(0, 1))
        keep.between, y, keep.scale_ffn = self._norm(x, _More(found, w.mix_bias), w.norm_ffn, None, found.dtype)
        keep.gate = torch.addmm(w.gate_bias, y[:, 0], w.gate)
        keep.u = y.new_empty(n, self.rows - 1, config.channels)
        torch.bmm(y[:, 1:].transpose(0, 1), w.ffn_in, out=keep.u.transpose(0, 1))
        kernels.gated[n,](
            keep.gate, keep.u, y, ROWS=self.rows, BR=power_of_two(self.rows), **self._sizes, num_warps=self._row_warps
        )
        torch.bmm(y.transpose(0, 1), w.ffn_out, out=found.transpose(0, 1))
        return keep.between, _More(found, w.ffn_bias), keep

    def _block_backward(
        self, d_x: Tensor, rounded: Tensor, keep: _Kept, w: BlockWeights, moments, d_distance, d_unit
    ) -> None:
        """Changes ``d_x`` from the gradient by what leaves the block to that by what entered it.

        ``rounded``: the same in the type of the maps, for them to read; ``d_x`` itself where that is its own.
        """
        from omnicalc.kernels import triton_nodes as kernels

        n, config = len(d_x), self.model.config
        degrees, f = config.l_max + 1, w.products_bias.shape[1]
        d_y = torch.empty_like(rounded)
        torch.bmm(rounded.transpose(0, 1), w.ffn_out.transpose(1, 2), out=d_y.transpose(0, 1))
        block = min(128, power_of_two(config.channels))
        kernels.gated_backward[n, -(-config.channels // block)](
            keep.gate, keep.u, d_y, DEGREES=degrees, C=config.channels, BC=block, num_warps=max(1, block // 64),
            **self._acc,
        )  # fmt: skip
        torch.bmm(keep.u.transpose(0, 1), w.ffn_in.transpose(1, 2), out=d_y[:, 1:].transpose(0, 1))
        torch.mm(keep.gate, w.gate.t(), out=d_y[:, 0])
        self._norm_backward(keep.between, w.norm_ffn, keep.scale_ffn, d_y, d_x, rounded, add=True)
        keep.gate = keep.u = keep.between = None  # memory that the rest does not need
        d_coupled = rounded.new_empty(n, w.coupling.rows, config.channels)
        for (of, to, paths), matrix in zip(w.parts, w.mix, strict=True):
            part = d_coupled[:, to].unflatten(1, (-1, paths)).flatten(2)
            torch.bmm(rounded[:, of].transpose(0, 1), matrix.transpose(1, 2), out=part.transpose(0, 1))
        d_qk = rounded.new_empty(2, *keep.q.shape)
        d_v = moments.backward(
            keep.q, keep.k, keep.value, w.gates, w.coupling, keep.coupled, keep.softmax, d_coupled, *d_qk, d_distance,
            d_unit,
        )  # fmt: skip
        del d_coupled
        keep.coupled = None
        torch.bmm(d_v.transpose(0, 1), w.value.transpose(1, 2), out=d_y.transpose(0, 1))
        d_z = torch.bmm(d_qk, w.last.transpose(1, 2))
        kernels.layernorm_silu_backward[2 * n,](
            keep.hidden, w.gamma, w.beta, d_z, n, F=f, BF=power_of_two(f), num_warps=_warps(f), **self._acc
        )
        d_t = torch.bmm(d_z, w.first.transpose(1, 2))
        block = min(256, power_of_two(f))
        kernels.products_backward[n, 2, -(-f // block)](
            keep.ab, w.products_bias, d_t, n, F=f, DEGREES=degrees, BF=block, num_warps=max(1, block // 64), **self._acc
        )
        d_y.transpose(0, 1).baddbmm_(keep.ab.transpose(0, 1), w.products.transpose(1, 2))
        self._norm_backward(keep.before, w.norm_attention, keep.scale, d_y, d_x, rounded, add=True)

    @property
    def _row_warps(self) -> int:
        return min(8, max(1, self._sizes["BC"] * power_of_two(self.rows) // 512))

    def _norm(self, x: Tensor, more: "_More | None", w: NormWeights, shift: Tensor | None, dtype: torch.dtype):
        """Features with ``more`` added, their norm as ``dtype``, and its scale (N,)."""
        from omnicalc.kernels import triton_nodes as kernels

        out, scale = torch.empty_like(x, dtype=dtype), x.new_empty(len(x))
        total = x if more is None else torch.empty_like(x)
        delta, bias = (x, w.beta) if more is None else (more.features, more.bias)
        kernels.norm[len(x),](
            x, delta, bias, total, w.gamma, w.beta, w.beta if shift is None else shift, self.system, out, scale,
            w.weight, ROWS=self.rows, MORE=more is not None, SHIFT=shift is not None, BR=power_of_two(self.rows),
            **self._sizes, num_warps=self._row_warps,
        )  # fmt: skip
        return total, out, scale

    def _norm_backward(
        self, x: Tensor, w: NormWeights, scale: Tensor, d_y: Tensor, d_x: Tensor, rounded: Tensor, add: bool
    ) -> None:
        """Writes the gradient by x to ``d_x``, or adds it, and the result to ``rounded`` if that is another tensor."""
        from omnicalc.kernels import triton_nodes as kernels

        kernels.norm_backward[len(x),](
            x, w.gamma, scale, w.weight, d_y, d_x, rounded, ROWS=self.rows, ADD=add, ROUNDED=rounded is not d_x,
            BR=power_of_two(self.rows), **self._sizes, num_warps=self._row_warps,
        )  # fmt: skip

    def _energies(self, scalars: Tensor, forces: bool) -> tuple[Tensor, Tensor | None]:
        """(N,) float64, and the gradient of their sum by the scalars (N, C)."""
        with torch.set_grad_enabled(forces):
            leaf = scalars.detach().contiguous().requires_grad_(forces)
            found = [(self.model.heads[name](leaf).squeeze(-1), mask) for name, mask in self.heads.items()]
            energies = sum(e if mask is None else torch.where(mask, e, 0.0) for e, mask in found)
            gradient = torch.autograd.grad(energies.sum(), leaf)[0] if forces else None
        return energies.detach().double(), gradient

    def _cores(self, near, d_distance: Tensor) -> Tensor:
        """Energies (N,) of the cores' repulsion; adds its slope to ``d_distance``."""
        height = 0.5 * self.model.config.core_height
        slot = torch.arange(near.shape[1], device=near.count.device)
        there = slot < near.count[:, None]
        other = self.kind[torch.where(there, near.source, 0).long()]
        radius = torch.where(there, self.model.core[self.kind[:, None], other], 0.0)
        inside = there & (near.distance < radius)
        depth = torch.where(inside, 1 - near.distance / torch.where(inside, radius, 1.0), 0.0)
        d_distance += torch.where(inside, -3 * height * depth.square() / torch.where(inside, radius, 1.0), 0.0)
        return (height * depth**3).sum(1).double()


def _warps(width: int) -> int:
    return min(8, max(1, power_of_two(width) // 128))
