"""E2Former-V2 on the native CPU kernel: which networks it takes, and how their weights reach it."""

import copy
import hashlib
from itertools import product
from math import sqrt
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import KernelError
from omnicalc.kernels.native.library import Checked, NativeE2Former, instruction_set
from omnicalc.models.e2former.attention import ZeroOrderValue
from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.layers import SIGMOID_GAIN, SILU_GAIN
from omnicalc.models.e2former.model import Block, E2Former
from omnicalc.models.e2former.radial_tables import DEGREE, nearest_distances, pair_functions, tables_within
from omnicalc.neighbor_list import FlatPairs
from omnicalc.systems import Systems

MAX_CHANNELS = 512  # of native/model.hpp
_WEIGHTS = {"softplus": 0, "sigmoid": 1, "softmax": 2}
_ENVELOPES = {"poly7": 7, "poly5": 5}
_KEPT = 3  # weights, of 3 (water) to 24 MB (ten elements)
_RECENT: dict[bytes, dict[tuple[int, int], np.ndarray]] = {}  # digest of weights -> their tables, used last at the end


def unsupported(config: E2FormerConfig) -> str | None:
    """Why the kernel cannot run such a network, or None if it can."""
    if reason := beyond_kernels(config):
        return reason
    if config.max_neighbors is not None:
        return "a cap on the number of neighbours"
    if config.channels > MAX_CHANNELS:
        return f"more than {MAX_CHANNELS} channels"
    return None


def beyond_kernels(config: E2FormerConfig) -> str | None:
    """What of such a network no kernel knows, neither that of a CPU nor those of a GPU; None if nothing."""
    if config.forces != "gradient":
        return "a direct force head"
    if config.gate != "qk":
        return f"the gate '{config.gate}', which depends on more than the distance"
    if config.long_layers:
        return "long-range blocks"
    if config.weights not in _WEIGHTS:
        return f"the attention weights '{config.weights}'"
    return None


class NativeModel:
    """One network with its elements, laid out for the kernel. The weights are those of the moment it is made."""

    def __init__(self, model: E2Former, numbers: list[int]):
        """``numbers``: atomic numbers it will see, each with a row of its own."""
        reason = unsupported(model.config)
        if reason:
            raise KernelError(f"the native kernel does not support {reason}")
        instruction_set()  # before the work on tables
        exact = copy.deepcopy(model).double().requires_grad_(False)
        self.config = model.config
        self.numbers = list(numbers)
        self.tables = _tables(exact, self.numbers)
        table = np.concatenate([points.ravel() for points in self.tables.values()])
        weights = np.concatenate([np.asarray(t, dtype=np.float32).ravel() for t in _weights(exact, self.numbers)])
        self._kernel = NativeE2Former(self._settings(exact), model.config.cutoff, weights, table)
        self._embedding = exact.system_embedding
        self._row = np.full(119, -1, dtype=np.int32)
        self._row[self.numbers] = np.arange(len(self.numbers))

    @property
    def instructions(self) -> str:
        """The instruction set in use: portable, avx2 or avx512."""
        return self._kernel.instructions

    def knows(self, numbers: list[int]) -> bool:
        """Whether these atomic numbers are among those it was made for."""
        return set(numbers) <= set(self.numbers)

    def prepare(self, systems: Systems, head: Tensor) -> "Prepared":
        """What does not change while atoms move: elements, structures, heads (S,) and their embeddings.

        Raises ValueError for elements it was not made for, whose tables would lie beyond the memory that it has, and
        for heads that there are not.
        """
        if not self.knows(systems.numbers.unique().tolist()):
            raise ValueError(f"atomic numbers {systems.numbers.unique().tolist()} given, made for {self.numbers}")
        if not all(0 <= h < len(self.config.heads) for h in head.tolist()):
            raise ValueError(f"rows {head.tolist()} of heads given, and there are {len(self.config.heads)}")
        system = systems.system.numpy().astype(np.int32)
        embedding = self._embedding(SimpleNamespace(charge=systems.charge, spin=systems.spin, head=head))
        if embedding is None:
            embedding = torch.zeros(systems.n_systems, self.config.channels)
        return Prepared(
            self._kernel,
            Checked(
                type=self._row[systems.numbers.numpy()],
                system=system,
                head=head.numpy().astype(np.int32)[system],
                embedding=np.ascontiguousarray(embedding.float().numpy()),
            ),
        )

    def _settings(self, model: E2Former) -> np.ndarray:
        c = model.config
        numbers = [
            c.l_max, c.channels, c.attention_heads, c.query_width, c.layers, c.attention_heads * c.query_width // 2,
            len(self.numbers), len(c.heads), _ENVELOPES[c.envelope], _WEIGHTS[c.weights],
        ]  # fmt: skip
        numbers += [_components(block) for block in model.blocks]
        return np.array(numbers + [len(points) - DEGREE for points in self.tables.values()], dtype=np.int32)


class Prepared:
    """The kernel with one fixed batch of atoms."""

    def __init__(self, kernel: NativeE2Former, atoms: Checked):
        self._kernel, self._atoms = kernel, atoms
        self._pairs: tuple[FlatPairs, Checked] | None = None

    def __call__(
        self, positions: Tensor, pairs: FlatPairs, *, forces: bool, virial: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Energies (N,) without references, forces (N, 3) and virials (N, 3, 3) of the atoms, float64, eV and Å."""
        found = self._kernel.evaluate(
            np.ascontiguousarray(positions.numpy()),
            self._atoms,
            self._checked(pairs),
            forces=forces,
            virial=virial,
            threads=torch.get_num_threads(),
        )
        energies, forces, virials = (None if x is None else torch.from_numpy(x) for x in found)
        return energies, forces, virials

    def _checked(self, pairs: FlatPairs) -> Checked:
        known = self._pairs  # threads may share this
        if known is None or known[0] is not pairs:
            known = pairs, Checked(row=pairs.row, source=pairs.source, reverse=pairs.reverse, offset=pairs.offset)
            self._pairs = known
        return known[1]


def _tables(exact: E2Former, numbers: list[int]) -> dict[tuple[int, int], np.ndarray]:
    """Control points (intervals + 5, F) of every pair (target, source): each pair on the grid that it needs, so that
    nothing depends on which other elements there are.

    Those of the weights used last are kept, for they take longer to make than all else, and calculators are often made
    anew: for every structure, for every image of a path.
    """
    pairs, weights = list(product(numbers, numbers)), _digest(exact)
    known = _RECENT.pop(weights, {})
    wanted = zip(pairs, pair_functions(exact, numbers), nearest_distances(numbers), strict=True)
    made = {
        pair: tables_within([function], exact.config.cutoff, nearest).points[0].astype(np.float32)
        for pair, function, nearest in wanted
        if pair not in known
    }
    _RECENT[weights] = known = known | made
    for old in list(_RECENT)[:-_KEPT]:
        _RECENT.pop(old, None)  # which another thread may have done
    return {pair: known[pair] for pair in pairs}


def _digest(model: E2Former) -> bytes:
    """Equal for equal settings and weights alone."""
    digest = hashlib.sha256(repr(model.config).encode())
    for tensor in (*model.parameters(), *model.buffers()):
        digest.update(tensor.numpy().tobytes())
    return digest.digest()


def _components(block: Block) -> int:
    value = block.attention.aggregate
    if isinstance(value, ZeroOrderValue):
        return 1
    return value.coupling.shape[1] // (value.project.weight.shape[0]) ** 2


def _weights(model: E2Former, numbers: list[int]):
    """All learned numbers in the order that native/model.hpp reads, neighbouring linear maps multiplied together."""
    config = model.config
    if config.cores:
        rows = model.element_row[torch.tensor(numbers)]
        yield model.core.radius[rows[:, None], rows]
    else:
        yield np.zeros((len(numbers), len(numbers)))
    yield np.array([config.core_height])
    if config.type_embedding:
        yield model.type_embedding(model.element_row[torch.tensor(numbers)])
    else:
        yield np.zeros((len(numbers), config.channels))
    for block in model.blocks:
        yield from _block(block, config)
    yield from (model.norm_final.gamma, model.norm_final.beta)
    for head in model.energy_heads.values():
        for linear in (head[0], head[2], head[4]):
            yield from (linear.weight, linear.bias)


def _block(block: Block, config: E2FormerConfig):
    attention, degrees = block.attention, range(config.l_max + 1)
    yield from (block.norm_attention.gamma, block.norm_attention.beta)
    factors = [attention.query.first, attention.query.second, attention.key.first, attention.key.second]
    for l in degrees:
        yield torch.cat([f.weight[l] for f in factors])
    yield torch.cat([f.offset() for f in factors])
    yield attention.value.weight
    yield attention.value.offset()
    for projection, scale in ((attention.query, 1 / sqrt(config.query_width)), (attention.key, 1.0)):
        first, norm, _, last = projection.mlp
        yield from (first.weight, first.bias, norm.weight, norm.bias, scale * last.weight, scale * last.bias)
    yield from _mix(attention.aggregate, config)
    yield from (block.norm_ffn.gamma, block.norm_ffn.beta)
    ffn = block.ffn
    yield ffn.gate.weight @ ffn.linear_in.weight[0]  # the scalars of linear_in reach nothing but the gate
    yield ffn.gate.weight @ ffn.linear_in.offset() + ffn.gate.bias
    yield ffn.linear_in.weight[1:]
    yield SILU_GAIN * ffn.linear_out.weight[:1]
    yield SIGMOID_GAIN * ffn.linear_out.weight[1:]
    yield ffn.linear_out.offset()


def _mix(value: torch.nn.Module, config: E2FormerConfig):
    """Whether couplings keep mirror symmetry, and the maps that follow them with their bias."""
    project = value.project
    if isinstance(value, ZeroOrderValue):
        yield np.ones(1)
        yield project.weight
    else:
        yield np.array([float(config.mirror_symmetric)])
        for l, n in value.paths.items():
            yield project.weight[l] @ value.mix[l].weight / sqrt(n)
    yield project.offset()
