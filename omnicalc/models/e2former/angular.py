"""Real spherical harmonics and first-order coupling tables, for degrees 0 to 2.

Basis order and signs are those of e3nn: degree 1 is (x, y, z); degree 2 is
(xz, xy, y^2 - (x^2 + z^2)/2, yz, (z^2 - x^2)/2) up to norms.
"""

from functools import cache
from math import sqrt

import torch
from torch import Tensor


def harmonics(vectors: Tensor, l_max: int) -> Tensor:
    """Real solid harmonics of ``vectors`` (..., 3), rows (l_max+1)^2, in component normalisation.

    On unit vectors the mean square of every component over the sphere is 1; on others degree l grows as r^l.
    """
    rows = [torch.ones_like(vectors[..., :1]), sqrt(3) * vectors]
    if l_max == 2:
        products = (vectors.unsqueeze(-1) * vectors.unsqueeze(-2)).flatten(-2)
        rows.append(products @ _second_degree(vectors.dtype, vectors.device))
    return torch.cat(rows, -1)


@cache
@torch.inference_mode(False)  # it is kept for calls that need gradients
def _second_degree(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(9, 5): the components of degree 2 from all products of two coordinates."""
    return (sqrt(15 / 2) * _traceless()).flatten(1).t().to(device, dtype)


def degree_of_row(l_max: int) -> list[int]:
    """Degree l of each of the (l_max+1)^2 feature rows."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def _traceless() -> Tensor:
    """(5, 3, 3): orthonormal symmetric traceless matrices, one per component of degree 2."""
    s = torch.zeros(5, 3, 3, dtype=torch.float64)
    s[0, 0, 2] = s[0, 2, 0] = sqrt(1 / 2)
    s[1, 0, 1] = s[1, 1, 0] = sqrt(1 / 2)
    s[2] = torch.diag(torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64)) / sqrt(6)
    s[3, 1, 2] = s[3, 2, 1] = sqrt(1 / 2)
    s[4] = torch.diag(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)) / sqrt(2)
    return s


def _levi_civita() -> Tensor:
    e = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        e[i, j, k], e[i, k, j] = 1.0, -1.0
    return e


def coupling(l1: int, l3: int) -> Tensor:
    """C[m1, m2, m3] of shape (2 l1+1, 3, 2 l3+1), float64, that couples degree l1 with a vector to degree l3.

    Equal to sqrt(2 l3 + 1) times the real Wigner 3j symbol of e3nn; squared Frobenius norm 2 l3 + 1.
    """
    eye = torch.eye(3, dtype=torch.float64)
    s, e = _traceless(), _levi_civita()
    tables = {
        (0, 1): lambda: eye.unsqueeze(0),
        (1, 0): lambda: eye.unsqueeze(-1) / sqrt(3),
        (1, 1): lambda: e / sqrt(2),
        (1, 2): lambda: s.permute(1, 2, 0),
        (2, 1): lambda: s * sqrt(3 / 5),
        # matrix elements of the rotation generator about axis m2 between two symmetric traceless matrices
        (2, 2): lambda: torch.einsum("aik,kbj,cji->abc", s, e, s) * sqrt(2 / 3),
    }
    return tables[l1, l3]().contiguous()


def coupling_paths(l_max: int, mirror_symmetric: bool) -> dict[int, list[int]]:
    """l3 -> the degrees l1 that feed it through a vector, ascending. Parity-mixing l1 = l3 paths can be dropped."""
    paths = {}
    for l3 in range(l_max + 1):
        candidates = range(abs(l3 - 1), min(l3 + 1, l_max) + 1)
        paths[l3] = [l1 for l1 in candidates if not (mirror_symmetric and l1 == l3)]
    return paths


def coupling_matrix(l_max: int, mirror_symmetric: bool, with_zero_order: bool) -> Tensor:
    """All couplings as one matrix (R, W * (l_max+1)^2), float64, with W = 3, or 4 with the zero order.

    Columns are (w, row of the value), w = 0, 1, 2 the component of the vector and w = 3 the plain sum; rows are
    ordered by (l3, m3, path), so that the rows of one l3 reshape to (2 l3 + 1, paths * channels). The zero-order path
    of l3, which takes degree l3 as it is, comes last.
    """
    width, zero = (l_max + 1) ** 2, int(with_zero_order)
    blocks = []
    for l3, degrees in coupling_paths(l_max, mirror_symmetric).items():
        block = torch.zeros(2 * l3 + 1, len(degrees) + zero, 3 + zero, width, dtype=torch.float64)
        for p, l1 in enumerate(degrees):
            block[:, p, :3, l1 * l1 : (l1 + 1) ** 2] = coupling(l1, l3).permute(2, 1, 0)
        if with_zero_order:
            block[:, -1, 3, l3 * l3 : (l3 + 1) ** 2] = torch.eye(2 * l3 + 1)
        blocks.append(block.reshape(-1, (3 + zero) * width))
    return torch.cat(blocks)
