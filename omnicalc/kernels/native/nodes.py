"""Networks that act on each atom alone, as lists of steps for nodes.cpp, twice differentiable.

Forces are first derivatives and training on forces needs second ones. Those are the gradients of <gradient, direction>,
which is the tangent of the values along the direction, weighted: so values and tangents go there side by side, and one
way back gives the gradients of inputs and weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from omnicalc.kernels.native.build import NODES
from omnicalc.kernels.native.library import instruction_set, open_library
from omnicalc.kernels.wanted import wanted

_LINEAR, _COUPLE, _NORM, _PRODUCT, _SILU, _GATE, _ADD = range(7)
_NUMBERS = ("atoms", "threads", "n_registers", "n_inputs", "n_outputs", "n_weights", "n_program")
_POINTERS = (
    "sizes", "inputs", "outputs", "weight_sizes", "program", "constants",
    "weights", "values", "tangents", "gradients", "results", "back", "d_weights",
)  # fmt: skip


class _Job(ctypes.Structure):
    """As in nodes.cpp."""

    _fields_ = [(n, ctypes.c_int64) for n in _NUMBERS] + [(n, ctypes.c_void_p) for n in _POINTERS]


@cache
def library() -> ctypes.CDLL:
    """Raises :class:`KernelError` where there is none."""
    lib = open_library(instruction_set(NODES), NODES)
    lib.omnicalc_nodes.argtypes = [ctypes.POINTER(_Job), ctypes.c_int]
    lib.omnicalc_nodes.restype = ctypes.c_int
    return lib


class NodeNetwork:
    """A list of steps between registers, each a row of numbers per atom. Methods add a step and return what it makes.

    Weights are named by where they are found, so that they may change, or be computed anew, between calls.
    """

    def __init__(self):
        self.sizes: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self._program: list[int] = []
        self._constants: list[float] = []
        self._owners: list[tuple[nn.Module, str]] = []
        self._packed: dict[str, object] | None = None

    def __getstate__(self) -> dict:
        return vars(self) | {"_packed": None}  # arrays for C cannot be pickled

    def input(self, *shape: int) -> int:
        self.inputs.append(self.register(*shape))
        return self.inputs[-1]

    def register(self, *shape: int) -> int:
        self.shapes.append(shape)
        self.sizes.append(torch.Size(shape).numel())
        return len(self.sizes) - 1

    def weights(self) -> list[Tensor]:
        """As they are now."""
        return [getattr(module, name) for module, name in self._owners]

    def _weight(self, module: nn.Module, name: str) -> int:
        if (module, name) not in self._owners:
            self._owners.append((module, name))
        return self._owners.index((module, name))

    def _constant(self, *values: float) -> int:
        self._constants += values
        return len(self._constants) - len(values)

    def _step(self, *numbers: int) -> None:
        self._program += [len(numbers), *numbers]

    def linear(self, x: int, module: nn.Module) -> int:
        """A linear map, with bias, of the first row."""
        n_out, n_in = module.weight.shape
        out, weight, bias = self.register(n_out), self._weight(module, "weight"), self._weight(module, "bias")
        self._step(_LINEAR, x, out, weight, 0, n_in, n_out, 1, 0, 0, 0, 0, bias)
        return out

    def per_degree(self, x: int, module: nn.Module, *, out: int | None = None, offset: int = 0) -> int:
        """An ``SO3Linear`` from rows (R, C_in) to rows (R, C_out), or into columns from ``offset`` on of wider rows."""
        degrees, n_out, n_in = module.weight.shape
        if out is None:
            out = self.register(degrees**2, n_out)
        stride = self.shapes[out][1]
        for l in range(degrees):
            bias = self._weight(module, "bias") if l == 0 and module.bias is not None else -1
            self._step(
                _LINEAR, x, out, self._weight(module, "weight"), l * n_out * n_in, n_in, n_out, 2 * l + 1,
                l * l * n_in, n_in, offset + l * l * stride, stride, bias,
            )  # fmt: skip
        return out

    def paths(self, x: int, modules: Sequence[nn.Module], counts: Sequence[int]) -> int:
        """Rows (sum_l (2 l + 1) n_l, C), ordered by degree, m and path, through the map of each degree from its n_l C
        numbers -> (R, C_out)."""
        width, n_out = self.shapes[x][1], modules[0].weight.shape[0]
        out, start = self.register(len(modules) ** 2, n_out), 0
        for l, (module, n) in enumerate(zip(modules, counts, strict=True)):
            self._step(
                _LINEAR, x, out, self._weight(module, "weight"), 0, n * width, n_out, 2 * l + 1,
                start * width, n * width, l * l * n_out, n_out, -1,
            )  # fmt: skip
            start += (2 * l + 1) * n
        return out

    def couple(self, x: int, matrix: Tensor, width: int) -> int:
        """A constant matrix (R_out, R_in) times rows (R_in, width)."""
        out = self.register(matrix.shape[0], width)
        entries = [(int(i), int(j)) for i, j in matrix.nonzero()]
        constants = [self._constant(float(matrix[i, j])) for i, j in entries]
        flat = [k for (i, j), c in zip(entries, constants, strict=True) for k in (i, j, c)]
        self._step(_COUPLE, x, out, width, len(entries), *flat)
        return out

    def norm(self, x: int, module: nn.Module, names: tuple[str, str], row_weights: Tensor, added: int = -1) -> int:
        """Rows, the first centred, by the root of their weighted squares; factors and offsets by name; one more
        register is added to the first row of what comes out."""
        rows = len(row_weights)
        width = self.sizes[x] // rows
        out = self.register(*self.shapes[x])
        gamma, beta = (self._weight(module, name) for name in names)
        self._step(_NORM, x, out, rows, width, gamma, beta, self._constant(*row_weights.tolist()), added)
        return out

    def product(self, x: int, first: int, second: int, width: int) -> int:
        """Columns from ``first`` on times those from ``second`` on, summed within each degree -> (degrees * width)."""
        rows, stride = self.shapes[x]
        out = self.register(round(rows**0.5) * width)
        self._step(_PRODUCT, x, out, rows, stride, width, first, second)
        return out

    def silu(self, x: int) -> int:
        out = self.register(*self.shapes[x])
        self._step(_SILU, x, out)
        return out

    def gate(self, x: int, gates: int, silu_gain: float, sigmoid_gain: float) -> int:
        """SiLU of the first gates as scalars, the other degrees of x times the sigmoid of theirs."""
        out = self.register(*self.shapes[x])
        self._step(_GATE, x, gates, out, *self.shapes[x], self._constant(silu_gain, sigmoid_gain))
        return out

    def add(self, x: int, y: int) -> int:
        out = self.register(*self.shapes[x])
        self._step(_ADD, x, y, out)
        return out

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Values of the outputs (N, ...) for inputs (N, ...), in the order in which they were made."""
        # views, because the engine tells of them, but not of leaves, whether their gradient is asked for
        return _Values.apply(self, *inputs, *(w.view_as(w) for w in self.weights()))

    def _fixed(self) -> dict[str, object]:
        """What is the same at every call, as arrays for C."""
        if self._packed is None:
            weight_sizes = [w.numel() for w in self.weights()]
            lists = {"sizes": self.sizes, "inputs": self.inputs, "outputs": self.outputs, "program": self._program}
            packed = {n: (ctypes.c_int64 * len(v))(*v) for n, v in (lists | {"weight_sizes": weight_sizes}).items()}
            self._packed = packed | {"constants": (ctypes.c_double * len(self._constants))(*self._constants)}
        return self._packed

    def run(self, values, weights, *, tangents=None, gradients=None, outputs=True, with_weights=False):
        """Outputs, or their tangents where there are ``tangents`` of the inputs; and with ``gradients`` of the outputs
        (or of their tangents) those of the inputs, and of the weights on request.
        """
        n, like = len(values[0]), values[0]
        if len(dtypes := {t.dtype for t in (*values, *weights)}) > 1:
            raise TypeError(f"native networks: tensors of one type are needed, not of {', '.join(map(str, dtypes))}")
        results = [like.new_empty(n, *self.shapes[r]) for r in self.outputs] if outputs else None
        back = None if gradients is None else [torch.empty_like(x) for x in values]
        d_weights = [torch.zeros_like(w) for w in weights] if with_weights else None
        fixed = self._fixed()
        lists = {"weights": weights, "values": values, "tangents": tangents, "gradients": gradients}
        lists |= {"results": results, "back": back, "d_weights": d_weights}
        lists = {name: _addresses(tensors) for name, tensors in lists.items()}
        job = _Job(
            n, torch.get_num_threads(), len(self.sizes), len(self.inputs), len(self.outputs), len(weights),
            len(self._program),
            **{name: None if x is None else ctypes.addressof(x) for name, x in (fixed | lists).items()},
        )  # fmt: skip
        if library().omnicalc_nodes(job, like.dtype == torch.float64):
            raise MemoryError("native networks: no memory left")
        return results, back, d_weights


def _addresses(tensors: Sequence[Tensor] | None):
    return None if tensors is None else (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


class _Values(Function):
    @staticmethod
    def forward(ctx, network, *tensors):
        tensors = [t.contiguous() for t in tensors]
        n = len(network.inputs)
        ctx.network = network
        ctx.save_for_backward(*tensors)
        return tuple(network.run(tensors[:n], tensors[n:])[0])

    @staticmethod
    def backward(ctx, *gradients):
        n = len(ctx.network.inputs)
        weights = len(ctx.saved_tensors) - n
        by_weights = [None] * weights
        if any(wanted(ctx)[-weights:]):
            found = _all_gradients(ctx, *gradients)
            if not torch.is_grad_enabled():
                return None, *found
            by_weights = found[n:]
        return None, *_Gradients.apply(ctx.network, *gradients, *ctx.saved_tensors), *by_weights


@once_differentiable
def _all_gradients(ctx, *gradients):
    n = len(ctx.network.inputs)
    gradients = [g.contiguous() for g in gradients]
    values, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
    _, back, d_weights = ctx.network.run(values, weights, gradients=gradients, outputs=False, with_weights=True)
    return (*back, *d_weights)


class _Gradients(Function):
    """Of the inputs, from those of the outputs; its own derivative by these, the inputs and the weights."""

    @staticmethod
    def forward(ctx, network, *tensors):
        tensors = [t.contiguous() for t in tensors]
        ctx.network = network
        ctx.save_for_backward(*tensors)
        gradients, values, weights = _parted(network, tensors)
        return tuple(network.run(values, weights, gradients=gradients, outputs=False)[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, *direction):
        direction = [d.contiguous() for d in direction]
        gradients, values, weights = _parted(ctx.network, ctx.saved_tensors)
        tangents, back, d_weights = ctx.network.run(
            values, weights, tangents=direction, gradients=gradients, with_weights=True
        )
        return None, *tangents, *back, *d_weights


def _parted(network: NodeNetwork, tensors: Sequence[Tensor]):
    """Gradients of the outputs, inputs, weights."""
    first, second = len(network.outputs), len(network.outputs) + len(network.inputs)
    return tensors[:first], tensors[first:second], tensors[second:]
