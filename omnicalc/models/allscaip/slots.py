"""The differentiable graph of nearest neighbours: which candidates are neighbours, how firmly, in which slot.

An edge from atom i to the image m of atom j, at distance r, ranks among i's candidates and among j's, the atoms
themselves included. With k = ``neighbors`` and λ = ``limit_scale``,

    e = λ log( exp(rank_i / kλ) + exp(rank_j / kλ) + exp(r / (cutoff λ)) )       (hard ranks: the maximum of the three)

and the edge exists where e < 1, with the log envelope g = -e² / (1 - e²), of which exp(g) vanishes there with all
derivatives. e is the same for the reverse edge, so every edge has one.

Candidates come from a neighbour list that reaches a little beyond the cutoff, so memory and time grow with the number
of atoms. That is enough: what is farther changes no rank of an edge (:mod:`omnicalc.models.allscaip.ranks`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.models.allscaip.config import SPARE_RANKS, AllScAIPConfig
from omnicalc.models.allscaip.images import allowed_images
from omnicalc.models.allscaip.ranks import STEPS, soft_ranks
from omnicalc.models.graph import Graph


@dataclass(frozen=True)
class Slots:
    """K slots for each of N atoms: slot 0 is the atom itself, then its neighbours by distance, then empty ones.

    Empty slots look like the atom itself, are their own reverse, and have a log envelope of -inf.
    """

    filled: Tensor  # (N, K) bool
    index: Tensor  # (N, K) int64: the neighbour
    unit: Tensor  # (N, K, 3) towards the neighbour; zeros for the atom itself
    distance: Tensor  # (N, K) Å
    log_envelope: Tensor  # (N, K)
    reverse: Tensor  # (N K,) int64: the slot of the reverse edge, an involution

    @classmethod
    def build(cls, graph: Graph, config: AllScAIPConfig) -> "Slots":
        """The slots of the atoms of ``graph``, whose neighbours reach to ``config.candidate_cutoff``."""
        edges = _edges(graph, config)
        n_atoms = len(graph.numbers)
        count = torch.bincount(edges.target, minlength=n_atoms)
        width = 1 + int(count.max())
        first = count.cumsum(0) - count
        place = edges.target * width + 1 + torch.arange(len(edges.target), device=count.device) - first[edges.target]
        itself = torch.arange(n_atoms, device=count.device)
        reverse = torch.arange(n_atoms * width, device=count.device)
        reverse[place] = place[edges.reverse]
        nothing = edges.distance.new_zeros(n_atoms * width)
        absent = torch.full_like(nothing, -torch.inf).index_fill(0, itself * width, 0.0)
        log_envelope = _log_envelope(edges.limit) if config.envelope else torch.zeros_like(edges.limit)
        shape = (n_atoms, width)
        return cls(
            filled=(absent == 0).index_fill(0, place, True).view(shape),
            index=itself.repeat_interleave(width).index_copy(0, place, edges.source).view(shape),
            unit=nothing.new_zeros(len(nothing), 3).index_copy(0, place, edges.unit).view(*shape, 3),
            distance=nothing.index_copy(0, place, edges.distance).view(shape),
            log_envelope=absent.index_copy(0, place, log_envelope).view(shape),
            reverse=reverse,
        )


@dataclass(frozen=True)
class _Edges:
    """E edges, sorted by target."""

    target: Tensor  # (E,) int64
    source: Tensor  # (E,) int64
    reverse: Tensor  # (E,) int64: which edge is the reverse
    unit: Tensor  # (E, 3) from target to source
    distance: Tensor  # (E,)
    limit: Tensor  # (E,) e

    def only(self, keep: Tensor) -> "_Edges":
        """Those with ``keep`` (E,), which is the same for an edge and its reverse."""
        chosen, renumbered = keep.nonzero()[:, 0], keep.cumsum(0) - 1
        parts = {name: value.index_select(0, chosen) for name, value in vars(self).items()}
        return _Edges(**{**parts, "reverse": renumbered[parts["reverse"]]})


def _edges(graph: Graph, config: AllScAIPConfig) -> _Edges:
    keep = graph.mask & (allowed_images(graph, config.cutoff) if config.image_limit else True)
    spare = config.ranking == "near" and not config.smooth
    candidates = graph.nearest(keep, config.neighbors + SPARE_RANKS - 1 if spare else None)  # by distance
    rows = _rows(candidates, config)
    ranks = _ranks(rows, candidates, config)
    target, slot = (rows.mask & (rows.distances < config.cutoff) & (ranks < config.neighbors)).nonzero(as_tuple=True)
    source, shift = rows.index[target, slot], rows.shift[target, slot]
    flat = target * rows.mask.shape[1] + slot
    distance = rows.distances.reshape(-1).index_select(0, flat)
    vector = rows.vectors.reshape(-1, 3).index_select(0, flat)
    rank = ranks.reshape(-1).index_select(0, flat)
    reverse, mutual = _reverse(target, source, shift, len(graph.numbers))
    edges = _Edges(target, source, reverse, -vector / distance.unsqueeze(-1), distance, rank).only(mutual)
    edges = replace(edges, limit=_limit(edges, config))
    edges = edges.only((edges.limit < 1) & (edges.limit[edges.reverse] < 1))
    return edges if config.max_slots is None else edges.only(_within_slots(edges, config.max_slots))


def _rows(candidates: Graph, config: AllScAIPConfig) -> Graph:
    """The nearest candidates, which alone can be neighbours: what has 2k nearer ones ranks k or more."""
    near = candidates.mask & (candidates.distances < config.cutoff)
    width = int(near.sum(1).max()) if near.numel() else 0
    width = min(width, 2 * config.neighbors)
    parts = {name: getattr(candidates, name)[:, :width] for name in ("index", "shift", "mask", "vectors", "distances")}
    return replace(candidates, **parts)


def _ranks(rows: Graph, candidates: Graph, config: AllScAIPConfig) -> Tensor:
    """Rank (N, R) of each row among its atom's candidates, of which the atom itself, at distance 0, is the first."""
    if config.ranking == "hard":
        places = torch.arange(1, rows.mask.shape[1] + 1, dtype=rows.distances.dtype, device=rows.mask.device)
        return places.expand(rows.mask.shape)
    kind = "bump" if config.ranking == "near" else "sigmoid"
    beyond = 2 * config.candidate_cutoff  # empty slots, whose step is then zero
    others = torch.where(candidates.mask, candidates.distances, beyond)
    ranks = soft_ranks(rows.distances, others, config.rank_scale, kind)
    return ranks + STEPS[kind](rows.distances / config.rank_scale)


def _limit(edges: _Edges, config: AllScAIPConfig) -> Tensor:
    """e (E,) of edges that hold the rank of each in the place of e."""
    rank = edges.limit / config.neighbors
    three = torch.stack([rank, rank.index_select(0, edges.reverse), edges.distance / config.cutoff])
    if config.ranking == "hard":
        return three.amax(0)
    return config.limit_scale * torch.logsumexp(three / config.limit_scale, 0)


def _log_envelope(limit: Tensor) -> Tensor:
    square = limit * limit
    return -square / (1 - square)


def _reverse(target: Tensor, source: Tensor, shift: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """For each edge (target, source, shift) the number of (source, target, -shift), and whether there is one."""
    if not len(target):
        return target, torch.zeros_like(target, dtype=torch.bool)
    n = shift.detach().round().to(torch.int64)
    reach = int(n.abs().max())
    span = 2 * reach + 1
    if n_atoms * n_atoms * span**3 >= 2**63:
        raise InputError(f"positions reach {reach} cells away; wrap them into the cell, as with atoms.wrap()")

    def key(i, j, n):
        a, b, c = (n + reach).unbind(-1)
        return (((i * n_atoms + j) * span + a) * span + b) * span + c

    keys, order = key(target, source, n).sort()
    wanted = key(source, target, -n)
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return order[place], keys[place] == wanted


def _within_slots(edges: _Edges, slots: int) -> Tensor:
    """Which edges (E,) are among the first ``slots`` by e, the atom itself included, of both of their atoms."""
    order = edges.limit.detach().argsort(stable=True)
    order = order[edges.target[order].argsort(stable=True)]
    count = torch.bincount(edges.target)
    first = (count.cumsum(0) - count)[edges.target]  # edges are sorted by target, as the order is
    place = torch.empty_like(order)
    place[order] = 1 + torch.arange(len(order), device=order.device) - first
    return (place < slots) & (place[edges.reverse] < slots)
