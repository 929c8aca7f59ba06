"""E2Former-V2: a stack of equivariant attention blocks on edge-degree embeddings, with typed energy heads."""

from functools import wraps
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.autocast import without_autocast
from omnicalc.kernels.edge_lists import FlatEdges
from omnicalc.kernels.native.attention import why_not
from omnicalc.kernels.native.edges import edge_sum
from omnicalc.kernels.native.nodes import NodeNetwork
from omnicalc.models.e2former.angular import harmonics
from omnicalc.models.e2former.attention import Attention, FirstOrderValue, PublishedGate, ZeroOrderValue
from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.fragments import FragmentPool, Fragments
from omnicalc.models.e2former.layers import (
    BesselBasis,
    CoreRepulsion,
    ElementRadial,
    FeedForward,
    GaussianBasis,
    PairRadial,
    RMSNorm,
    SO3Linear,
    bell,
    envelope,
    split_degrees,
)
from omnicalc.models.e2former.node_networks import after_attention, before_attention
from omnicalc.models.e2former.radial_network import radial_network
from omnicalc.models.graph import Graph, ModelOutput


class SystemEmbedding(nn.Module):
    """The vector s of every structure that each attention block adds to its scalars; (S,) inputs -> (S, C).

    ``kind`` names the tables that are looked up, mixed and activated: "charge-spin" as released, "head",
    "head-charge-spin", or "none".
    """

    def __init__(self, kind: str, channels: int, n_heads: int):
        super().__init__()
        names = [] if kind == "none" else kind.split("-")
        if "charge" in names:
            self.charge = nn.Embedding(30, channels)  # row charge + 10, clipped to -10..10
            self.spin = nn.Embedding(30, channels)  # row 2S+1, clipped to 0..20
        if "head" in names:
            self.head = nn.Embedding(n_heads, channels)
        if names:
            self.mix = nn.Linear(len(names) * channels, channels)
        self.names = names

    def forward(self, graph: Graph) -> Tensor | None:
        if not self.names:
            return None
        rows = {"charge": graph.charge.clamp(-10, 10) + 10, "spin": graph.spin.clamp(0, 20), "head": graph.head}
        return F.silu(self.mix(torch.cat([getattr(self, name)(rows[name]) for name in self.names], -1)))


class Block(nn.Module):
    """x + Attn(RMS(x) + s), then x + FFN(RMS'(x)); its radial gate comes from the block or from outside.

    With ``pool`` the sources of attention are fragments, made from the normalised features.
    """

    def __init__(self, config: E2FormerConfig, value: str, gate: nn.Module | None, pool: nn.Module | None = None):
        super().__init__()
        c, l_max, heads = config.channels, config.l_max, config.attention_heads
        if value == "zero-order":
            mixed = ZeroOrderValue(l_max, c)
        else:
            mirror, both = config.mirror_symmetric, value == "both"
            mixed = FirstOrderValue(l_max, c, heads, config.value_multiplicity, mirror, both)
        self.norm_attention = RMSNorm(l_max, c)
        self.attention = Attention(mixed, l_max, c, heads, config.query_width, config.weights)
        self.gate = gate
        self.norm_ffn = RMSNorm(l_max, c)
        self.ffn = FeedForward(l_max, c)
        self.pool = pool
        self._networks: dict[bool | None, NodeNetwork] = {}  # made when they are first needed

    def forward(self, x: Tensor, s: Tensor | None, edges: "EdgeFeatures") -> Tensor:
        if edges.step.ndim == 1:
            return self._on_flat_edges(x, s, edges)
        y = self.norm_attention(x)
        if s is not None:
            y = y + F.pad(s.unsqueeze(1), (0, 0, 0, x.shape[1] - 1))
        graph = edges.graph
        if self.gate is None:
            gate, factor = edges.next_gate()
        else:
            gate, factor = self.gate(y, edges.basis, graph.numbers, graph.index, graph.vectors, edges.unit)
        source = y if self.pool is None else self.pool(y, edges.fragments)
        x = x + self.attention(y, source, gate, factor, edges.step, edges.unit, graph)
        return x + self.ffn(self.norm_ffn(x))

    def _on_flat_edges(self, x: Tensor, s: Tensor | None, edges: "EdgeFeatures") -> Tensor:
        """The same in native loops."""
        before, after = self._native(s is not None)
        q, keys, value = before(x) if s is None else before(x, s)
        gate, factor = edges.next_gate()
        moments = self.attention.moments(q, keys, value, gate, factor, edges.step, edges.unit, edges.graph)
        return after(x, moments)[0]

    def _native(self, with_embedding: bool) -> tuple[NodeNetwork, NodeNetwork]:
        networks = self._networks  # threads may share the block: each entry is asked for on its own
        if with_embedding not in networks:
            networks[with_embedding] = before_attention(self.norm_attention, self.attention, with_embedding)
        if None not in networks:
            networks[None] = after_attention(self.attention, self.norm_ffn, self.ffn)
        return networks[with_embedding], networks[None]


class EdgeFeatures:
    """Per-edge quantities shared by the blocks that run on one graph: (N, K, ...), or (E, ...) on its flat edges."""

    def __init__(
        self,
        graph: Graph,
        basis: Tensor | None,
        step: Tensor,
        unit: Tensor,
        gates: list[Tensor] | None = None,
        fragments: Fragments | None = None,
    ):
        """``gates``: gate and factor (..., H) of the first block, of the second, and so on."""
        self.graph, self.basis, self.step, self.unit, self.fragments = graph, basis, step, unit, fragments
        self._gates = iter(gates) if gates is not None else None

    def next_gate(self) -> tuple[Tensor, Tensor]:
        """Gate and factor (..., H) of the next block, from the shared radial network."""
        return next(self._gates), next(self._gates)


class EdgeEmbedding(nn.Module):
    """Initial features x_i^(l) = 1/scale sum_j Y^(l)(rhat_ij) u(r_ij) R_l(r_ij, Z_i, Z_j).

    ``per-block``: one radial network and shared element tables per embedding, as released.
    """

    def __init__(self, config: E2FormerConfig):
        super().__init__()
        width, hidden = config.n_basis, min(128, config.n_basis // 2)
        self.target = nn.Embedding(300, width)
        self.source = nn.Embedding(300, width)
        self.radial = nn.ModuleList(
            ElementRadial(width, width, hidden, config.channels, config.embedding_layernorm)
            for _ in range(config.l_max + 1)
        )

    def forward(self, edges: EdgeFeatures) -> Tensor:
        """(N, K, (l_max+1) * C) radial factors."""
        graph = edges.graph
        target, source = self.target(graph.numbers), self.source(graph.numbers)[graph.index]
        return torch.cat([radial(edges.basis, target, source) for radial in self.radial], -1)


class EnergyHead(nn.Sequential):
    """Lin-SiLU-Lin-SiLU-Lin on the scalars, one energy per atom."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Linear(channels, channels),
            nn.SiLU(),
            nn.Linear(channels, channels),
            nn.SiLU(),
            nn.Linear(channels, 1),
        )

    @property
    def last(self) -> Tensor:
        """(C,): weights of the last layer."""
        return self[-1].weight.detach()[0]

    def hidden(self, scalars: Tensor) -> Tensor:
        """(N, C): what the last layer takes."""
        for layer in list(self)[:-1]:
            scalars = layer(scalars)
        return scalars


class GatedVectorBlock(nn.Module):
    """Scalars and vectors (N, C), (N, 3, C) -> (N, C_out), (N, 3, C_out): the release's "painn" output block."""

    def __init__(self, c_in: int, c_out: int, activate: bool):
        super().__init__()
        self.vec1 = nn.Linear(c_in, c_in, bias=False)
        self.vec2 = nn.Linear(c_in, c_out, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * c_in, c_in), nn.SiLU(), nn.Linear(c_in, 2 * c_out))
        self.activate = activate

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        length = self.vec1(v).square().sum(1)
        # the length of a zero vector has no gradient; the release takes the plain norm
        length = torch.where(length > 0, length, 1.0).sqrt() * (length > 0)
        s, g = self.update(torch.cat([s, length], -1)).chunk(2, -1)
        v = g.unsqueeze(1) * self.vec2(v)
        return (F.silu(s) if self.activate else s), v


class DirectForceHead(nn.Module):
    """Forces read off the degree-1 rows, (N, rows, C) -> (N, 3): "linear", or "painn" (two gated blocks)."""

    def __init__(self, kind: str, channels: int):
        super().__init__()
        self.kind = kind
        if kind == "linear":
            self.weight = nn.Parameter(torch.empty(1, channels).uniform_(-1, 1) / sqrt(channels))
        else:
            self.blocks = nn.ModuleList(
                [GatedVectorBlock(channels, channels // 2, True), GatedVectorBlock(channels // 2, 1, False)]
            )

    def forward(self, x: Tensor) -> Tensor:
        vectors = x[:, 1:4]
        if self.kind == "linear":
            return (vectors * self.weight).sum(-1)
        scalars = x[:, 0]
        for block in self.blocks:
            scalars, vectors = block(scalars, vectors)
        return vectors.squeeze(-1)


def _in_own_precision(method):
    """Without autocast: the native loops take numbers of one type, and an energy needs more than 16 bits."""

    @wraps(method)
    def run(self, graph: Graph, *args, **kwargs):
        with without_autocast(graph.vectors.device):
            return method(self, graph, *args, **kwargs)

    return run


class E2Former(nn.Module):
    """The network of one :class:`E2FormerConfig`. Maps a :class:`Graph` to per-atom energies (and direct forces)."""

    head_rows = {"system_embedding.head.weight": 1, "committee": 1}  # tensors with rows for each head, and how many
    element_tables = {"type_embedding.weight": 1, "radial.pair_bias": 2, "long_radial.pair_bias": 2}  # 2: of pairs
    mixed_precision = False  # autocast changes nothing

    def __init__(self, config: E2FormerConfig):
        super().__init__()
        self.config = config
        c, l_max = config.channels, config.l_max
        self.system_embedding = SystemEmbedding(config.system_input, c, len(config.heads))
        basis = BesselBasis if config.basis == "bessel" else GaussianBasis
        self.basis = basis(config.cutoff, config.n_basis)
        if config.elements is not None:
            rows = torch.full((119,), -1)
            rows[torch.tensor(config.elements)] = torch.arange(len(config.elements))
            self.register_buffer("element_row", rows, persistent=False)
        if config.radial == "shared":
            outputs = (l_max + 1) * c + config.layers * 2 * config.attention_heads
            self.radial = PairRadial(config.n_basis, len(config.elements), config.radial_width, outputs)
        else:
            self.edge_embedding = EdgeEmbedding(config)
        if config.type_embedding:
            self.type_embedding = nn.Embedding(len(config.elements), c)
        self.blocks = nn.ModuleList(Block(config, v, self._gate(config)) for v in config.values)
        if config.long_layers:
            self.long_basis = GaussianBasis(config.long_upper, config.n_basis)
            self.norm_long_in = RMSNorm(l_max, c)
            if config.radial == "shared":
                outputs = config.long_layers * 2 * config.attention_heads
                self.long_radial = PairRadial(config.n_basis, len(config.elements), config.radial_width, outputs)
            pooled = config.long_sources == "fragments"
            self.long_blocks = nn.ModuleList(
                Block(config, "zero-order", self._gate(config), FragmentPool(l_max, c) if pooled else None)
                for _ in range(config.long_layers)
            )
            self.norm_long_out = RMSNorm(l_max, c)
        if config.long_layers and config.long_merge == "concatenated":
            self.merge_long = SO3Linear(l_max, 2 * c, c)
        else:
            self.norm_final = RMSNorm(l_max, c)
        if config.long_layers and config.long_merge == "added":
            self.add_long = SO3Linear(l_max, c, c, bias=False)
            nn.init.zeros_(self.add_long.weight)  # so weights without these blocks are a start for those with them
        if config.cores:
            self.core = CoreRepulsion(config.elements, config.cores, config.core_height)
        self.energy_heads = nn.ModuleDict({name: EnergyHead(c) for name in config.heads})
        if config.committee:  # of each head: by how much its members' last layers (weights, bias) differ from its own
            self.register_buffer("committee", torch.zeros(len(config.heads), config.committee, c + 1))
        if config.forces != "gradient":
            self.force_heads = nn.ModuleDict({h: DirectForceHead(config.forces, c) for h in config.heads})

    @staticmethod
    def _gate(config: E2FormerConfig) -> nn.Module | None:
        if config.radial == "shared":
            return None
        return PublishedGate(config.gate, config.l_max, config.channels, config.attention_heads, config.n_basis)

    @property
    def elements(self) -> tuple[int, ...] | None:
        return self.config.elements

    @property
    def cutoff(self) -> float:
        return self.config.neighbor_cutoff

    @property
    def conservative(self) -> bool:
        return self.config.forces == "gradient"

    def training_notice(self, device: torch.device) -> str | None:
        """What to say before training that will be slow for want of native libraries; None if there is nothing."""
        reason = why_not() if device.type == "cpu" else None
        return None if reason is None else f"training in plain torch, at about half the speed: {reason}"

    def native(self, numbers: list[int]):
        """This network, with its present weights, on the native CPU kernel, for these atomic numbers.

        Raises :class:`KernelError` with the reason when there is none for it here.
        """
        from omnicalc.models.e2former.native import NativeModel

        return NativeModel(self, numbers)

    def on_device(self, numbers: list[int], maps: torch.dtype | None = None):
        """As :meth:`native`, on the GPU where the weights are.

        ``maps``: 16-bit type of the linear maps and of what they read and write; None: the model's dtype.
        """
        from omnicalc.models.e2former.device import DeviceModel

        return DeviceModel(self, numbers, maps)

    @_in_own_precision
    def forward(self, graph: Graph, spread: bool = False) -> ModelOutput:
        """``spread``: with what each member of the committee says."""
        x = self.features(graph)
        head = graph.head[graph.system]
        energies = torch.cat([mlp(x[:, 0]) for mlp in self.energy_heads.values()], -1)
        energies = energies.gather(1, head.unsqueeze(1)).squeeze(1)
        if self.config.cores:
            rows = self.element_row[graph.numbers]
            energies = energies + self.core(graph.distances, rows, rows[graph.index])
        deviations = self._deviations(x, head) if spread else None
        if self.conservative:
            return ModelOutput(energies, deviations=deviations)
        forces = torch.stack([mlp(x) for mlp in self.force_heads.values()])
        return ModelOutput(energies, forces[head, torch.arange(len(x), device=x.device)])

    @_in_own_precision
    def last_features(self, graph: Graph) -> Tensor:
        """(N, C + 1): what the last layer of each structure's energy head is linear in, and a 1 for its bias."""
        return self._last_features(self.features(graph), graph.head[graph.system])

    def _last_features(self, x: Tensor, head: Tensor) -> Tensor:
        hidden = torch.stack([mlp.hidden(x[:, 0]) for mlp in self.energy_heads.values()])  # (heads, N, C)
        mine = hidden[head, torch.arange(len(x), device=x.device)]
        return F.pad(mine, (0, 1), value=1.0)

    def _deviations(self, x: Tensor, head: Tensor) -> Tensor:
        """(M, N) eV: what each member of the committee adds to an atom's energy."""
        return torch.einsum("nmd,nd->mn", self.committee[head], self._last_features(x, head))

    @_in_own_precision
    def features(self, graph: Graph, condition: Tensor | None = None) -> Tensor:
        """(N, (l_max+1)^2, C): the features that enter the heads.

        ``condition`` (N, C) is added to the scalars that enter every attention block, beside the system embedding.
        """
        s = self.system_embedding(graph)
        s = None if s is None else s[graph.system]
        if condition is not None:
            condition = condition.to(graph.vectors.dtype)
            s = condition if s is None else s + condition
        edges, x = self._embed(self._short_graph(graph))
        for block in self.blocks:
            x = block(x, s, edges)
        if not self.config.long_layers:
            return self.norm_final(x)
        y, far = self.norm_long_in(x), self._long_edges(graph)
        for block in self.long_blocks:
            y = block(y, s, far)
        y = self.norm_long_out(y)
        if self.config.long_merge == "added":
            return self.norm_final(x) + self.add_long(y)
        return self.merge_long(torch.cat([x, y], -1))

    def _embed(self, graph: Graph) -> tuple[EdgeFeatures, Tensor]:
        """Edge features of the short graph and the initial node features."""
        edges, x = self._embed_flat(graph) if self._is_flat(graph) else self._embed_dense(graph)
        if self.config.type_embedding:
            token = self.type_embedding(self.element_row[graph.numbers])
            x = x + F.pad(token.unsqueeze(1), (0, 0, 0, x.shape[1] - 1))
        return edges, x

    def _is_flat(self, graph: Graph) -> bool:
        """Whether the padding of the neighbour lists can be left out: everything per edge is in native kernels."""
        return self.config.radial == "shared" and all(
            isinstance(block.attention.kernel_edges(graph.vectors, graph), FlatEdges) for block in self.blocks
        )

    def _embed_flat(self, graph: Graph) -> tuple[EdgeFeatures, Tensor]:
        config, flat = self.config, graph.flat_edges
        vectors = graph.vectors.flatten(0, 1).index_select(0, flat.number)
        distances = vectors.square().sum(-1).sqrt()
        unit = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
        step = envelope(distances, config.cutoff, config.envelope)
        rows = self.element_row[graph.numbers]
        pair = self.radial.pair(rows[flat.target], rows[flat.source])
        if distances.requires_grad:
            radial = radial_network(distances, pair, self.basis, self.radial)
        else:
            radial = self.radial.of_pairs(self.basis(distances).to(distances.dtype), pair)
        radial, *gates = self._split(radial)
        angular = harmonics(unit, config.l_max) * (step / config.embedding_scale).unsqueeze(-1)
        return EdgeFeatures(graph, None, step, unit, gates), edge_sum(angular, radial, flat.begin)

    def _embed_dense(self, graph: Graph) -> tuple[EdgeFeatures, Tensor]:
        config = self.config
        basis = self.basis(graph.distances).to(graph.distances.dtype)
        step = torch.where(graph.mask, envelope(graph.distances, config.cutoff, config.envelope), 0.0)
        if config.radial == "shared":
            rows = self.element_row[graph.numbers]
            radial, *gates = self._split(self.radial(basis, rows, rows[graph.index]))
            edges = EdgeFeatures(graph, basis, step, _unit(graph), gates)
        else:
            edges = EdgeFeatures(graph, basis, step, _unit(graph))
            radial = self.edge_embedding(edges)
        angular = harmonics(edges.unit, config.l_max) * (step / config.embedding_scale).unsqueeze(-1)
        pairs = zip(split_degrees(angular, 2), radial.chunk(config.l_max + 1, -1), strict=True)
        return edges, torch.cat([torch.bmm(a.transpose(1, 2), r) for a, r in pairs], 1)

    def _split(self, radial: Tensor) -> tuple[Tensor, ...]:
        """What the shared network gives (..., out): factors of the first features, then gate and factor per block."""
        config = self.config
        return radial.split([(config.l_max + 1) * config.channels, *2 * config.layers * [config.attention_heads]], -1)

    def _short_graph(self, graph: Graph) -> Graph:
        config = self.config
        if config.max_neighbors is None and not config.long_layers:
            return graph  # the neighbour list already holds exactly these pairs
        keep = (graph.distances >= 1e-4) & (graph.distances <= config.cutoff)
        return graph.nearest(keep & self._allowed_images(graph), config.max_neighbors)

    def _long_edges(self, graph: Graph) -> EdgeFeatures:
        """Edges from heavy atoms (Z > 1) between the long cutoffs, with their own basis and envelope."""
        config = self.config
        heavy = (graph.numbers > 1)[graph.index]
        keep = heavy & (graph.distances >= config.long_lower) & (graph.distances <= config.long_upper)
        far = graph.nearest(keep & self._allowed_images(graph), config.long_max_neighbors)
        basis = self.long_basis(far.distances).to(far.distances.dtype)
        gates = None
        if config.radial == "shared":
            rows = self.element_row[far.numbers]
            gates = self.long_radial(basis, rows, rows[far.index]).split(config.attention_heads, -1)
        fragments = Fragments(graph, config.fragment_radius) if config.long_sources == "fragments" else None
        if config.long_envelope == "bell":
            step = bell(far.distances, config.long_lower, config.long_upper)
        else:
            step = envelope(far.distances, config.long_upper, config.long_envelope)
        return EdgeFeatures(far, basis, torch.where(far.mask, step, 0.0), _unit(far), gates, fragments)

    def _allowed_images(self, graph: Graph) -> Tensor:
        if self.config.image_limit is None:
            return torch.ones_like(graph.mask)
        return (graph.wrapped_shift.abs() <= self.config.image_limit).all(-1)


def _unit(graph: Graph) -> Tensor:
    """Unit edge vectors (N, K, 3)."""
    return graph.vectors / graph.distances.clamp(min=1e-6).unsqueeze(-1)
