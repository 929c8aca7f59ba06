"""AllScAIP: attention among the neighbours of each atom, then among all atoms, block by block, with typed heads.

The state h (N, K, H) has a vector for every slot of every atom (:mod:`omnicalc.models.allscaip.slots`). A block attends
among the slots of each source, exchanges every edge for its reverse, attends among the slots of each target, exchanges
back; slot 0, the atom itself, then attends to slot 0 of all atoms of its structure. Directions enter as raw spherical
harmonics, so the energy is not invariant under rotation: that is learned.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError, WeightsError
from omnicalc.models.allscaip.config import CHARGES, SPINS, AllScAIPConfig
from omnicalc.models.allscaip.harmonics import harmonics, legendre
from omnicalc.models.allscaip.images import image_reach, pair_distances
from omnicalc.models.allscaip.layers import (
    MLP,
    FeedForward,
    NeighborAttention,
    NodeAttention,
    activation,
    linear,
    norm,
    radial_features,
    sinc_features,
)
from omnicalc.models.allscaip.limits import check_memory, check_tables
from omnicalc.models.allscaip.lone_atoms import OMOL, LoneAtoms
from omnicalc.models.allscaip.slots import Slots
from omnicalc.models.cube_rotations import rotation_set
from omnicalc.models.graph import Graph, ModelOutput
from omnicalc.systems import Systems

_LEAST_ORDER = 1e-6  # of a squared bond order parameter


class InputBlock(nn.Module):
    """Slots -> first state (N, K, H). An atom's slots see its own element; its neighbours' reach it by attention."""

    def __init__(self, config: AllScAIPConfig):
        super().__init__()
        self.config, width = config, config.width
        self.act = activation(config.activation)
        self.element = nn.Embedding(config.max_elements, width)
        nn.init.uniform_(self.element.weight, -1e-3, 1e-3)
        self.order = linear(config.order_degrees, width)
        self.norm = norm(config.norm, 2 * width)
        self.atom = linear(2 * width, width)
        self.charge = nn.Embedding(len(CHARGES), width)
        self.spin = nn.Embedding(len(SPINS), width)
        self.system = linear(2 * width, width)
        self.edge = linear(config.n_radial + config.direction_degrees**2, width)
        self.state = linear(2 * width, width)  # of atom and edge

    def forward(self, graph: Graph, slots: Slots, directions: Tensor) -> Tensor:
        """``directions`` (N, K, at least direction_degrees²) are the harmonics of the slots' directions."""
        config, act = self.config, self.act
        orders = act(self.order(bond_orders(directions[..., : config.order_degrees**2], slots, config)))
        atoms = act(self.atom(self.norm(torch.cat([self.element(graph.numbers), orders], -1))))
        charge = self.charge(graph.charge - CHARGES.start)
        system = act(self.system(torch.cat([charge, self.spin(graph.spin - SPINS.start)], -1)))
        atoms = atoms + system.index_select(0, graph.system)
        radial = radial_features(slots.distance, config.radial, config.cutoff, config.n_radial)
        edges = act(self.edge(torch.cat([radial, directions[..., : config.direction_degrees**2]], -1)))
        # the affine map of [atom, edge], with the atom's part computed once for all its slots
        of_atom, of_edge = self.state.weight.split(config.width, -1)
        return act((atoms @ of_atom.T + self.state.bias).unsqueeze(1) + edges @ of_edge.T)


def bond_orders(directions: Tensor, slots: Slots, config: AllScAIPConfig) -> Tensor:
    """q_l = √(Σ_m (mean over slots of Y_lm / √(2l + 1))²), (N, degrees), from harmonics (N, K, degrees²).

    The release counts every slot as one and takes √max(q², 1e-6); both jump, the first in the energy, where a neighbour
    comes or goes. ``smooth`` weighs slots with exp(g) and takes √(q² + 1e-6).
    """
    weights = slots.log_envelope.exp() if config.smooth else slots.filled.to(directions.dtype)
    mean = torch.einsum("nk,nkc->nc", weights, directions) / weights.sum(1, keepdim=True)
    parts = mean.square().split([2 * l + 1 for l in range(config.order_degrees)], -1)
    squares = torch.stack([part.mean(-1) for part in parts], -1)  # the mean over m divides by 2l + 1
    return (squares + _LEAST_ORDER if config.smooth else squares.clamp(min=_LEAST_ORDER)).sqrt()


class Block(nn.Module):
    """Attention among a source's slots, among a target's, among all atoms; feed-forward networks on edges and atoms."""

    def __init__(self, config: AllScAIPConfig):
        super().__init__()
        self.source, self.target = NeighborAttention(config), NeighborAttention(config)
        self.edge_ffn = FeedForward(config)
        self.nodes = NodeAttention(config) if config.node_attention else None
        self.node_ffn = FeedForward(config)

    def forward(self, h: Tensor, view: "View", last: bool) -> Tensor:
        """(N, K, H) -> (N, K, H), or in the ``last`` block (N, 1, H): nothing but the atoms is used after it."""
        slots, tables = view.slots, view.polynomials
        h = exchange(h + self.source(h, slots.log_envelope, tables), slots.reverse)
        kept = h[:, :1] if last else h
        h = kept + self.target(h, slots.log_envelope, tables, first_only=last)
        if not last:
            h = exchange(h, slots.reverse)
        atoms = h[:, 0]  # an atom itself is its own reverse
        if self.nodes is not None:
            atoms = atoms + self.nodes(atoms, view.groups, view.features)
        atoms = self.node_ffn(atoms).unsqueeze(1)
        return atoms if last else torch.cat([atoms, self.edge_ffn(h[:, 1:])], 1)


class _Exchange(torch.autograd.Function):
    """Rows (M, H) in the order of an involution, whose backward pass is the same exchange (index_add is slower)."""

    @staticmethod
    def forward(ctx, rows: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return rows.index_select(0, reverse)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Exchange.apply(gradient, ctx.saved_tensors[0]), None


def exchange(h: Tensor, reverse: Tensor) -> Tensor:
    """h (N, K, H) with the state of every edge exchanged for that of its reverse."""
    return _Exchange.apply(h.flatten(0, 1), reverse).view_as(h)


@dataclass(frozen=True)
class View:
    """What all blocks see of a batch."""

    slots: Slots
    polynomials: list[Tensor]  # P_l (N, K, K) of the slots' directions; empty without angular encoding
    groups: list[Tensor]  # atoms (s, n) of s structures of n atoms, one group for each n
    features: list[Tensor]  # sinc features (s, n, n, F) of each group; empty without


class Head(nn.Module):
    """norm and MLP on the atoms' states, (N, H) -> (N, n_out)."""

    def __init__(self, config: AllScAIPConfig, n_out: int):
        super().__init__()
        self.norm = norm(config.norm, config.width)
        self.mlp = MLP(config.width, config.head_multiplier * config.width, n_out, config.activation)
        for part in (self.mlp.first, self.mlp.second):
            if part is not None:
                nn.init.xavier_uniform_(part.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x))


class AllScAIP(nn.Module):
    """The network of one :class:`AllScAIPConfig`. Maps a :class:`Graph` to per-atom energies (and direct forces)."""

    def __init__(self, config: AllScAIPConfig):
        super().__init__()
        self.config = config
        self.input = InputBlock(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.energy_heads = nn.ModuleDict({name: Head(config, 1) for name in config.heads})
        if config.forces == "direct":
            self.force_heads = nn.ModuleDict({name: Head(config, 3) for name in config.heads})
        tabled = config.isolated is not None and OMOL in config.heads
        self._lone_atoms = LoneAtoms(config.isolated, config.heads.index(OMOL)) if tabled else None

    @property
    def cutoff(self) -> float:
        """Radius of the neighbour list that the network needs, Å: more than that of its edges."""
        return self.config.candidate_cutoff

    @property
    def conservative(self) -> bool:
        return self.config.forces == "gradient"

    @property
    def uses_positions(self) -> bool:
        """Whether edge vectors are not enough: distances between all atoms, or atoms wrapped into the cell."""
        return self.config.sinc > 0 and self.config.node_attention or self.config.image_limit

    def set_options(self, *, rotations: int) -> None:
        """Average over so many rotations of a cube, in evaluation: 1, 4, 12 or 24. Raises :class:`InputError`."""
        try:
            self.config = self.input.config = replace(self.config, rotations=rotations)
        except WeightsError as error:
            raise InputError(str(error)) from None

    def check(self, systems: Systems) -> None:
        """Refuse charges, spins and elements outside the tables, and structures too large for the memory.

        Raises:
            InputError: with what is allowed.
        """
        check_tables(systems.charge, systems.spin, systems.numbers, self.config)
        if self.config.node_attention:
            sizes = [(1, n) for n in systems.counts.tolist()]
            check_memory(sizes, self.config, next(self.parameters()), self.training)

    def forward(self, graph: Graph) -> ModelOutput:
        config, head = self.config, graph.head[graph.system]
        energies, forces = [], []
        for turn, atoms in self._orientations(graph):
            energies.append(self._by_head(self.energy_heads, atoms, head).squeeze(-1))
            if not self.conservative:
                forces.append(self._by_head(self.force_heads, atoms, head) @ turn)
        energy = torch.stack(energies).mean(0) * config.scale
        if config.reduce == "mean":
            energy = energy / torch.bincount(graph.system)[graph.system]
        force = None if self.conservative else torch.stack(forces).mean(0) * config.scale
        output = ModelOutput(energy, force)
        return output if self._lone_atoms is None else self._lone_atoms.put_into(output, graph)

    def features(self, graph: Graph, condition: Tensor | None = None) -> Tensor:
        """(N, H): the features that enter the heads, of the structures as they stand.

        ``condition`` (N, H), as in self-conditioned denoising, is added to all slots before every block.
        """
        return next(self._orientations(graph, condition))[1]

    def _orientations(self, graph: Graph, condition: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The rotations to average over, (3, 3), and the features (N, H) of the structures turned by each."""
        slots = Slots.build(graph, self.config)
        view = self._view(graph, slots)
        degrees = max(self.config.order_degrees, self.config.direction_degrees)
        count = 1 if self.training else self.config.rotations
        for turn in rotation_set(count, slots.unit.dtype, slots.unit.device):
            unit = slots.unit if count == 1 else slots.unit @ turn.T
            h = self.input(graph, slots, harmonics(unit, degrees))
            for k, block in enumerate(self.blocks):
                h = h if condition is None else h + condition.unsqueeze(1)
                h = block(h, view, last=k == len(self.blocks) - 1)
            yield turn, h[:, 0]

    def _view(self, graph: Graph, slots: Slots) -> View:
        config, polynomials, groups, features = self.config, [], [], []
        if config.angular:
            cosine = slots.unit @ slots.unit.mT
            other = (slots.distance > 0).to(cosine.dtype)  # directions, that is; the atom itself has none
            polynomials = legendre(cosine, other.unsqueeze(2) * other.unsqueeze(1), len(config.angular))
        if config.node_attention:
            groups = structures_by_size(graph.system)
        if config.node_attention and config.sinc:
            reach = image_reach(graph, config.cutoff)
            features = [sinc_features(pair_distances(graph, atoms, reach), config.sinc) for atoms in groups]
        return View(slots, polynomials, groups, features)

    @staticmethod
    def _by_head(heads: nn.ModuleDict, atoms: Tensor, head: Tensor) -> Tensor:
        """(N, n_out): each atom by the head (N,) of its structure."""
        if len(heads) == 1:
            return next(iter(heads.values()))(atoms)
        found = torch.stack([mlp(atoms) for mlp in heads.values()])
        return found[head, torch.arange(len(atoms), device=atoms.device)]


def structures_by_size(system: Tensor) -> list[Tensor]:
    """Atoms (s, n) of the s structures that have n atoms, for each n; ``system`` (N,) ascending."""
    count = torch.bincount(system)
    first = count.cumsum(0) - count
    groups = []
    for n in count.unique().tolist():
        if n:
            groups.append(first[count == n].unsqueeze(1) + torch.arange(n, device=system.device))
    return groups
