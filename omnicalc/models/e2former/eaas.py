"""First-order values by the release's route (EAAS), and by dense Clebsch-Gordan products: two references.

Attention itself uses neither. With U_ij = (r_i - r_j) / r_ij the coupled sum splits into terms of single atoms,

    sum_j alpha C(v_j, U_ij) = C(a_i, r_i) - sum_j (alpha / r_ij) C(v_j, r_j),    a_i = sum_j (alpha / r_ij) v_j,

so that C is applied per atom and image, not per edge. C(v, r) rotates v into the frame where r lies along the polar
axis y, takes and scales rows (only m2 = 0 couples there), and rotates back: D = J Z(-b) J Z(-a) with a = atan2(x, z),
b = acos(y / r), Z a rotation about y, and J the half turn that swaps x and y.

The price: 20 + 9 rows gathered per edge in place of 9 (l_max 2), absolute positions, whose cancellation loses digits
far from the origin, and no gradient where an atom lies on the y axis. (UBio-MolFM release; arXiv:2602.17709.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from omnicalc.models.e2former.aggregate import aggregate
from omnicalc.models.e2former.angular import coupling, coupling_matrix, coupling_paths


@dataclass(frozen=True)
class Images:
    """The M source atoms with their periodic images, as nodes of their own."""

    atom: Tensor  # (M,) int64, the atom of which it is an image
    positions: Tensor  # (M, 3) Å
    index: Tensor  # (N, K) int64, image of each neighbour slot

    @classmethod
    def build(cls, positions: Tensor, vectors: Tensor, index: Tensor, shift: Tensor) -> "Images":
        """From positions (N, 3), edges r_i - r_j (N, K, 3), sources (N, K) and their lattice translations (N, K, 3)."""
        n, k = index.shape
        home = torch.cat([torch.arange(n, device=index.device).unsqueeze(1), index.new_zeros(n, 3)], 1)
        edges = torch.cat([index.unsqueeze(-1), shift.round().long()], -1).reshape(n * k, 4)
        unique, image = torch.unique(torch.cat([home, edges]), dim=0, return_inverse=True)
        places = torch.cat([positions, (positions.unsqueeze(1) - vectors).reshape(n * k, 3)])
        one_of_each = torch.empty(len(unique), dtype=torch.long, device=index.device)
        one_of_each[image] = torch.arange(n * (k + 1), device=index.device)
        return cls(unique[:, 0], places[one_of_each], image[n:].view(n, k))


def eaas_first_order(
    alpha: Tensor, distances: Tensor, value: Tensor, positions: Tensor, images: Images, mirror_symmetric: bool
) -> Tensor:
    """Coupled sums (N, R, C), rows ordered by (l3, m3, path) as in :func:`coupling_matrix`.

    Weights alpha (N, H, K), distances (N, K) in Å, values (N, rows, C), positions (N, 3) in Å.
    """
    weights = (alpha / distances.unsqueeze(1)).unsqueeze(2)
    from_source = value[images.atom]
    plain = _sum(weights, from_source, images.index)
    coupled = _sum(weights, couple(from_source, images.positions, mirror_symmetric), images.index)
    return couple(plain, positions, mirror_symmetric) - coupled


def _sum(weights: Tensor, value: Tensor, index: Tensor) -> Tensor:
    """:func:`aggregate` from M >= N sources, by rows of weight zero for the M - N images that are no targets."""
    n, more = len(index), len(value) - len(index)
    weights, index = F.pad(weights, (0, 0, 0, 0, 0, 0, 0, more)), F.pad(index, (0, 0, 0, more))
    return aggregate(weights, value, index)[:n].squeeze(1)


def dense_first_order(alpha: Tensor, unit: Tensor, value: Tensor, index: Tensor, mirror_symmetric: bool) -> Tensor:
    """The same from products of every row with every component of every edge, through one dense table."""
    l_max = round(value.shape[1] ** 0.5) - 1
    table = coupling_matrix(l_max, mirror_symmetric, with_zero_order=False).to(value)
    gathered = value[index]
    products = (unit.unsqueeze(-1).unsqueeze(-1) * gathered.unsqueeze(2)).flatten(2, 3)  # (N, K, 3 rows, C)
    per_channel = alpha.repeat(1, value.shape[2] // alpha.shape[1], 1).transpose(1, 2).unsqueeze(2)
    return (torch.matmul(table, products) * per_channel).sum(1)


def couple(value: Tensor, vectors: Tensor, mirror_symmetric: bool) -> Tensor:
    """C(v, r) of values (M, rows, C) and vectors (M, 3) -> (M, R, C)."""
    l_max = round(value.shape[1] ** 0.5) - 1
    rotations = to_polar_axis(vectors, l_max)
    in_frame = torch.cat([d @ part for d, part in zip(rotations, _degrees(value, l_max), strict=True)], 1)
    length = vectors.square().sum(-1).sqrt()[:, None, None]
    out = []
    for l3, degrees in coupling_paths(l_max, mirror_symmetric).items():
        paths = []
        for l1 in degrees:
            rows, scale = polar_rows(l1, l3)
            taken = in_frame[:, rows.to(value.device)] * scale.to(value).unsqueeze(-1)
            paths.append(rotations[l3].transpose(1, 2) @ taken)
        out.append(torch.stack(paths, 2).flatten(1, 2) * length)
    return torch.cat(out, 1)


def polar_rows(l1: int, l3: int) -> tuple[Tensor, Tensor]:
    """Per m3, the one feature row that couples with a vector along y, and its coefficient (0 where none does)."""
    table = coupling(l1, l3)[:, 1]
    m1 = table.abs().argmax(0)
    scale = table.gather(0, m1.unsqueeze(0)).squeeze(0)
    none = scale.abs() < 1e-12
    return torch.where(none, 0, l1 * l1 + m1), torch.where(none, 0.0, scale)


def to_polar_axis(vectors: Tensor, l_max: int) -> list[Tensor]:
    """Per degree, the matrices (M, 2l+1, 2l+1) of rotations that turn ``vectors`` (M, 3) onto +y; float64 inside."""
    x, y, z = vectors.double().unbind(-1)
    a, b = torch.atan2(x, z), torch.atan2((x * x + z * z).sqrt(), y)
    rotations = []
    for l in range(l_max + 1):
        half_turn = _half_turn(l).to(vectors.device)
        rotations.append((half_turn @ _about_y(-b, l) @ half_turn @ _about_y(-a, l)).to(vectors.dtype))
    return rotations


def _about_y(angle: Tensor, l: int) -> Tensor:
    """Z(angle): cos(m angle) on the diagonal and -sin(m angle) on the other one."""
    m = torch.arange(-l, l + 1, device=angle.device)
    phase = angle.unsqueeze(-1) * m
    return torch.diag_embed(phase.cos()) - torch.diag_embed(phase.sin()).flip(-1)


def _half_turn(l: int) -> Tensor:
    """J: x and y swapped and z reversed, in degree l."""
    turn = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    if l == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    if l == 1:
        return turn
    s = coupling(1, 2)  # (3, 3, 5): orthonormal symmetric traceless matrices
    return torch.einsum("ija,ik,klb,jl->ab", s, turn, s, turn)


def _degrees(x: Tensor, l_max: int) -> tuple[Tensor, ...]:
    return x.split([2 * l + 1 for l in range(l_max + 1)], 1)
