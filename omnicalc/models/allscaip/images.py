"""Lattice images as the release counts them, and distances to the nearest image of every atom of a structure.

The release wraps atoms into the cell and looks at images up to ceil(cutoff / height) cells away along each periodic
axis, height being the cell's along that axis. That is every image within the cutoff, but not every one a little beyond.
"""

import torch
from torch import Tensor

from omnicalc.models.graph import Graph

_ON_A_FACE = 1e-6  # cell lengths by which an atom may lie outside the cell and count as inside
_PIECE = 1 << 22  # pairs times images that are looked at at a time


def allowed_images(graph: Graph, cutoff: float) -> Tensor:
    """Which neighbours (N, K) of ``graph`` are among the release's images."""
    wraps = wrapped_by(graph)
    n = graph.shift.to(wraps.dtype) + wraps[graph.index] - wraps.unsqueeze(1)
    return (n.abs() <= image_reach(graph, cutoff)[graph.system].unsqueeze(1)).all(-1)


def wrapped_by(graph: Graph) -> Tensor:
    """How many cells (N, 3) each atom lies outside the cell, along periodic axes; float64."""
    inverse = torch.linalg.inv(_whole_cells(graph))[graph.system]
    positions = graph.positions.detach().double() + graph.origin[graph.system]
    fractions = torch.einsum("na,nab->nb", positions, inverse)
    return torch.floor(fractions + _ON_A_FACE) * graph.pbc[graph.system]


def image_reach(graph: Graph, cutoff: float) -> Tensor:
    """The farthest image (S, 3) along each axis: ceil(cutoff / height), 0 where not periodic; float64."""
    a, b, c = _whole_cells(graph).unbind(1)
    faces = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    volume = (a * faces[:, 0]).sum(-1).abs()
    return torch.ceil(cutoff * (faces / volume[:, None, None]).norm(dim=-1)) * graph.pbc


def pair_distances(graph: Graph, atoms: Tensor, reach: Tensor) -> Tensor:
    """Distances (s, n, n), Å, between the atoms (s, n) of structures of equal size, each to the nearest image of the
    other among those up to ``reach`` (S, 3) cells away from the wrapped positions; 0 for an atom and itself.
    """
    positions, structures = graph.positions[atoms], graph.system[atoms[:, 0]]
    vectors = positions.unsqueeze(1) - positions.unsqueeze(2)
    if graph.pbc[structures].any():
        wraps = wrapped_by(graph)[atoms]
        shifts = [
            _nearest(vectors[k].detach().double(), wraps[k], graph.cell[s].detach().double(), reach[s])
            for k, s in enumerate(structures.tolist())
        ]
        vectors = vectors + torch.stack(shifts).to(vectors.dtype) @ graph.cell[structures].unsqueeze(1)
    square = vectors.square().sum(-1)
    zero = square <= 1e-12
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def _nearest(vectors: Tensor, wraps: Tensor, cell: Tensor, reach: Tensor) -> Tensor:
    """Whole cells (n, n, 3) by which the second atom of each pair is to be moved to be nearest to the first."""
    ranges = [torch.arange(-r, r + 1, dtype=cell.dtype, device=cell.device) for r in reach.tolist()]
    images = torch.cartesian_prod(*ranges)
    unwrapped = wraps.unsqueeze(1) - wraps.unsqueeze(0)
    inside = vectors + unwrapped @ cell  # between wrapped positions
    found = []
    for rows in inside.split(max(1, _PIECE // (len(inside) * len(images)))):
        square = (rows.unsqueeze(2) + images @ cell).square().sum(-1)
        found.append(images[square.argmin(-1)])
    return torch.cat(found) + unwrapped


def _whole_cells(graph: Graph) -> Tensor:
    """The cells (S, 3, 3) in float64, with unit vectors perpendicular to all others in the place of zero vectors."""
    return torch.stack([_completed(cell) for cell in graph.cell.detach().double()])


def _completed(cell: Tensor) -> Tensor:
    empty = (cell == 0).all(1)
    if not empty.any():
        return cell
    given = cell[~empty]
    # the last right singular vectors span what the given vectors leave out
    normals = torch.linalg.svd(given)[2][len(given) :] if len(given) else torch.eye(3).to(cell)
    return cell.clone().index_copy_(0, empty.nonzero()[:, 0], normals)
