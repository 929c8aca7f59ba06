"""Flat directed edges with self loops, as the SCD networks see a :class:`omnicalc.models.graph.Graph`."""

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.models.graph import Graph

CLOSEST_SQUARED = 1e-4  # Å^2; pairs no longer than this are dropped by the release
TIE = 0.01  # Å^2 beyond the first neighbour over the limit, within which the release keeps the others too


@dataclass(frozen=True)
class Edges:
    """E edges s -> t, the N self loops last. d = r_s - r_t (with the image's translation)."""

    numbers: Tensor  # (N,) int64
    system: Tensor  # (N,) int64
    n_systems: int
    source: Tensor  # (E,) int64
    target: Tensor  # (E,) int64
    vectors: Tensor  # (E, 3) d, Å
    lengths: Tensor  # (E,) Å
    normalise_images: bool = True

    @property
    def n_atoms(self) -> int:
        return self.numbers.shape[0]

    @property
    def n_pairs(self) -> int:
        """Edges that are no self loops; they stand first."""
        return self.source.shape[0] - self.n_atoms

    @cached_property
    def between(self) -> Tensor:
        """(E,) bool: edges that count as edges between different atoms.

        Those to an atom's own periodic image count only with ``normalise_images``; the release tells them from
        self loops by nothing but the index.
        """
        different = self.source != self.target
        if self.normalise_images:
            different = torch.arange(len(different), device=different.device) < self.n_pairs
        return different

    def directions(self, floor: float = 1e-8) -> Tensor:
        """(E, 3): d / (|d| + floor) between atoms, d itself elsewhere."""
        scale = torch.where(self.between, self.lengths + floor, 1.0)
        return self.vectors / scale.unsqueeze(-1)

    def sum_to_target(self, messages: Tensor) -> Tensor:
        """Sums of ``messages`` (E, ...) over the incoming edges of each atom, (N, ...)."""
        return messages.new_zeros(self.n_atoms, *messages.shape[1:]).index_add(0, self.target, messages)


def edges_of(
    graph: Graph,
    *,
    cutoff: float,
    max_neighbors: int | None = None,
    refuse_more_pairs: bool = False,
    normalise_images: bool = True,
) -> Edges:
    """The edges of ``graph`` within ``cutoff``, truncated as the release does when ``max_neighbors`` is given.

    Truncation (general builder of the release): a target atom with more than M = ``max_neighbors`` neighbours keeps
    those with q <= q_M + 0.01 Å^2, q being the sorted squared distances counted from 0; so M + 1 at least. The release
    keeps pairs at exactly the cutoff, our neighbour lists do not.

    Raises:
        InputError: ``refuse_more_pairs`` (molecular builder of the release) and more than M N pairs in the batch.
    """
    squared = graph.vectors.detach().square().sum(-1)
    keep = graph.mask & (squared <= cutoff * cutoff)
    if max_neighbors is not None:
        keep = keep & (squared > CLOSEST_SQUARED)
        if refuse_more_pairs:
            _check_pairs(int(keep.sum()), max_neighbors, len(graph.numbers))
        elif keep.shape[1] > max_neighbors:
            keep = _truncated(squared, keep, max_neighbors)
    target, slot = keep.nonzero(as_tuple=True)
    flat = target * keep.shape[1] + slot  # index_select of flat rows: its backward is one index_add
    atoms = torch.arange(len(graph.numbers), device=target.device)
    vectors = -graph.vectors.reshape(-1, 3).index_select(0, flat)
    loops = vectors.new_zeros(len(atoms), 3)
    lengths = vectors.square().sum(-1).sqrt()
    return Edges(
        numbers=graph.numbers,
        system=graph.system,
        n_systems=len(graph.head),
        source=torch.cat([graph.index[target, slot], atoms]),
        target=torch.cat([target, atoms]),
        vectors=torch.cat([vectors, loops]),
        lengths=torch.cat([lengths, loops[:, 0]]),
        normalise_images=normalise_images,
    )


def _truncated(squared: Tensor, keep: Tensor, limit: int) -> Tensor:
    farthest = squared.masked_fill(~keep, torch.inf).sort(dim=1).values[:, limit]  # inf where there are no more
    kept = keep & (squared <= farthest.unsqueeze(1) + TIE)
    if bool((kept != keep).any()):
        warnings.warn(
            f"atoms with more than {limit} neighbours: the farther ones are left out, as in the SCD release, so the "
            "energy jumps where neighbours change places; our own weights have no such limit (max_neighbors)",
            RuntimeWarning,
            stacklevel=2,
        )
    return kept


def _check_pairs(found: int, limit: int, n_atoms: int) -> None:
    if found > limit * n_atoms:
        raise InputError(
            f"{found} pairs within the cutoff, but the released molecular neighbour search holds {limit} per atom, "
            f"{limit * n_atoms} for {n_atoms} atoms; use refuse_more_pairs = false (truncation) or a larger "
            "max_neighbors in the settings of the weights"
        )
