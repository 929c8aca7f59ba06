"""Where the energy's derivatives are taken: at the edge vectors, or at positions and strain.

``EdgeGeometry`` is for models whose energy depends on the geometry through the edge vectors d_ij = r_i - r_j alone.
One gradient, dE/d(d_ij), then gives forces and virial, and edge vectors are differences of float64 positions, cast to
the model's dtype afterwards. ``PositionGeometry`` is for models that look at positions as well (``uses_positions``):
forces are -dE/dr and the virial is dE/d(strain), where r becomes r (1 + strain), and the cell likewise. Both are
differentiable again, for training on forces.
"""

import torch
from torch import Tensor, nn

from omnicalc.models.graph import Graph
from omnicalc.neighbors import Neighbors
from omnicalc.systems import Systems


def geometry(model: nn.Module, systems: Systems, neighbors: Neighbors, dtype: torch.dtype, differentiate: bool):
    """The geometry that ``model`` needs, with leaves to differentiate by if ``differentiate``."""
    kind = PositionGeometry if getattr(model, "uses_positions", False) else EdgeGeometry
    return kind(systems, neighbors, dtype, differentiate)


class EdgeGeometry:
    """Edge vectors as the only leaves."""

    def __init__(self, systems: Systems, neighbors: Neighbors, dtype: torch.dtype, differentiate: bool):
        self.systems, self.neighbors = systems, neighbors
        self.vectors = neighbors.vectors(systems.positions, systems.cell, systems.system)
        edges = self.vectors.to(dtype, copy=True)
        self.edges = edges.requires_grad_() if differentiate else edges

    def graph(self, head: Tensor) -> Graph:
        return Graph.build(self.systems, self.neighbors, self.edges, head)

    def derivatives(
        self, energy: Tensor, *, virial: bool, create_graph: bool = False, again: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Forces (N, 3), eV/Å, and on request the virial dE/d(strain) (S, 3, 3), eV, float64, of energies (S,).

        ``again``: derivatives will be asked for once more.
        """
        (gradient,) = _gradients(energy, [self.edges], create_graph, again)
        gradient = gradient.double()
        forces = forces_from_edges(gradient, self.neighbors.index)
        if not virial:
            return forces, None
        per_atom = torch.einsum("nka,nkb->nab", self.vectors, gradient)
        return forces, per_structure(per_atom, self.systems)


class PositionGeometry:
    """Positions and a strain at zero as leaves; positions reach the model counted from each structure's centroid."""

    def __init__(self, systems: Systems, neighbors: Neighbors, dtype: torch.dtype, differentiate: bool):
        self.systems, self.neighbors, self.dtype = systems, neighbors, dtype
        self.positions, self.strain = systems.positions.clone(), torch.zeros_like(systems.cell)
        if differentiate:
            self.positions.requires_grad_()
            self.strain.requires_grad_()

    def graph(self, head: Tensor) -> Graph:
        systems = self.systems
        stretch = torch.eye(3, dtype=self.strain.dtype, device=self.strain.device) + self.strain
        cell = systems.cell @ stretch
        positions = torch.einsum("na,nab->nb", self.positions, stretch[systems.system])
        vectors = self.neighbors.vectors(positions, cell, systems.system)
        sums = positions.new_zeros(systems.n_systems, 3).index_add(0, systems.system, positions)
        centroids = sums / systems.counts[:, None]
        centred = positions - centroids[systems.system]
        return Graph.build(
            systems,
            self.neighbors,
            vectors.to(self.dtype),
            head,
            positions=centred.to(self.dtype),
            cell=cell.to(self.dtype),
            origin=centroids.detach(),
        )

    def derivatives(
        self, energy: Tensor, *, virial: bool, create_graph: bool = False, again: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`EdgeGeometry.derivatives`."""
        leaves = [self.positions, self.strain] if virial else [self.positions]
        found = _gradients(energy, leaves, create_graph, again)
        return -found[0], found[1] if virial else None


def _gradients(energy: Tensor, leaves: list[Tensor], create_graph: bool, again: bool = False) -> list[Tensor]:
    """dE/d(leaf) for each leaf, zeros where the energy depends on none of it (isolated atoms)."""
    if not energy.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    kept = create_graph or again
    found = torch.autograd.grad(energy.sum(), leaves, retain_graph=kept, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def forces_from_edges(gradient: Tensor, index: Tensor) -> Tensor:
    """F_i = -dE/dr_i from dE/d(d_ij) (N, K, 3), d_ij = r_i - r_j: minus the row's sum, plus what i gets as source."""
    forces = -gradient.sum(1)
    return forces.index_add(0, index.reshape(-1), gradient.reshape(-1, 3))


def per_structure(values: Tensor, systems: Systems) -> Tensor:
    """Sums (S, ...) over each structure of the atoms' (N, ...)."""
    if systems.n_systems == 1 and values.is_cuda:  # there index_add adds in any order, and bits would differ each time
        return values.sum(0, keepdim=True)
    return values.new_zeros(systems.n_systems, *values.shape[1:]).index_add(0, systems.system, values)


def stress_of(virial: Tensor, systems: Systems) -> Tensor:
    """(1/V) dE/d(strain), symmetric, eV/Å^3, from the virial (S, 3, 3); NaN for cells without volume."""
    volume = torch.linalg.det(systems.cell).abs()
    known = (volume > 0)[:, None, None]
    # divided by 1 where there is none, so that gradients of the others stay finite
    stress = 0.5 * (virial + virial.transpose(1, 2)) / torch.where(known, volume[:, None, None], 1.0)
    return torch.where(known, stress, torch.nan)
