"""The pair search of :mod:`omnicalc.pair_search` on the device of the positions, for large boxes on a GPU.

Atoms are sorted into bins no thinner than the radius; each looks at its own bin and the 26 around it, all at once. The
result is the same to the last bit, in the same order.
"""

import torch
from torch import Tensor

from omnicalc.pair_search import translation

_AT_ONCE = 1 << 24  # candidates that are looked at together: about a gigabyte
_MARGIN = 1e-6  # Å, for the rounding of fractions


def bins_of(cell: Tensor, pbc: Tensor, radius: float) -> list[int] | None:
    """Bins along the three axes; None where the search is not for it: cells not periodic, or below three bins."""
    if not bool(pbc.all()):
        return None
    heights = 1.0 / torch.linalg.inv(cell).norm(dim=0)
    bins = [int(h // (radius + _MARGIN)) for h in heights.tolist()]
    return bins if min(bins) >= 3 else None


def search_on_device(positions: Tensor, cell: Tensor, bins: list[int], radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs i, j (E,) int64 and shifts n (E, 3) float64 with |r_i - r_j - n @ cell| < radius, in canonical order.

    ``positions`` (N, 3) and ``cell`` (3, 3) float64; ``bins`` from :func:`bins_of` for the same cell and radius.
    """
    count = torch.tensor(bins, device=positions.device)
    fractions = positions @ torch.linalg.inv(cell)
    wrapped = torch.floor(fractions)
    place = torch.minimum(((fractions - wrapped) * count).long(), count - 1)
    number = (place[:, 0] * bins[1] + place[:, 1]) * bins[2] + place[:, 2]
    order = torch.argsort(number, stable=True)
    held = torch.bincount(number, minlength=bins[0] * bins[1] * bins[2])
    first = held.cumsum(0) - held
    most = torch.arange(int(held.max()), device=positions.device)
    around = torch.cartesian_prod(*3 * [torch.tensor([-1, 0, 1], device=positions.device)])
    found = []
    for atoms in torch.arange(len(positions), device=positions.device).split(max(1, _AT_ONCE // (27 * len(most)))):
        other = place[atoms, None] + around  # (A, 27, 3)
        image = torch.div(other, count, rounding_mode="floor")
        other = other - image * count
        other = (other[..., 0] * bins[1] + other[..., 1]) * bins[2] + other[..., 2]
        a, b, m = (most < held[other][..., None]).nonzero(as_tuple=True)
        i, j = atoms[a], order[first[other[a, b]] + m]
        n = wrapped[i] - wrapped[j] + image[a, b]
        d = (positions[i] - positions[j]) - translation(n, cell[None])
        d = d * d
        keep = (d[:, 0] + d[:, 1] + d[:, 2] < radius * radius) & ((i != j) | (n != 0).any(1))
        found.append((i[keep], j[keep], n[keep]))
    i, j, n = (torch.cat(column) for column in zip(*found, strict=True))
    order = canonical_order(i, j, n, len(positions))
    return i[order], j[order], n[order]


def canonical_order(i: Tensor, j: Tensor, shift: Tensor, n_atoms: int) -> Tensor:
    """The order (E,) of pairs by (i, j, n_a, n_b, n_c), by stable sorts from the last key to the first."""
    order = torch.argsort(shift[:, 2], stable=True)
    for key in (shift[:, 1], shift[:, 0], i * n_atoms + j):
        order = order[torch.argsort(key[order], stable=True)]
    return order
