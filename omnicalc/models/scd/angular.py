"""Angles and torsions of pairs of edges, and their embeddings, for CGT.

At atom j, edge k -> j meets edge j -> i (k != i). Angle: between r_i - r_j and r_k - r_j. Torsion about j -> i against
every other neighbour n of j (n != i, n != k):

    phi = atan2((p1 x p2) . r_ji / |r_ji|, p1 . p2),   p1 = r_ji x r_jk,   p2 = r_ji x r_jn,   in (0, 2 pi],

of which the smallest counts, 2 pi where there is no n. The release forgets n != k, takes n in line with j -> i, and
has 0 or 2 pi in a plane, all by rounding noise; that is not copied: the first two are left out, a plane is 2 pi. Even
so the minimum jumps between 0 and 2 pi. Everything comes from edge vectors, so periodic images are atoms of their own;
the release uses plain positions and is for molecules only.
"""

from dataclasses import dataclass
from functools import cache
from math import pi, sqrt

import torch
from torch import Tensor

from omnicalc.models.scd.edges import Edges

DEGREES, RADIALS = 3, 6
SAME_SQUARED = 0.01  # Å^2; images of one atom lie a lattice vector apart
STRAIGHT = 1e-10  # squared sine up to which three atoms are in line
FLAT = 1e-5  # rad, up to which a torsion is none but for rounding


@dataclass(frozen=True)
class Angles:
    """Over the P edges between different atoms and T pairs of them."""

    lengths: Tensor  # (P,) Å
    edge_kj: Tensor  # (T,) int64
    edge_ji: Tensor  # (T,) int64
    angle: Tensor  # (T,) rad
    torsion: Tensor  # (T,) rad


def angles_of(edges: Edges) -> Angles:
    pairs = edges.between.nonzero()[:, 0]
    source, target = edges.source[pairs], edges.target[pairs]
    vectors, lengths = edges.vectors[pairs], edges.lengths[pairs]
    incoming = _Incoming(source, target, edges.n_atoms)
    ji = torch.arange(len(pairs), device=pairs.device)
    ji, kj = incoming.join(ji, source)
    other = ~_reverse(source, target, vectors, kj, ji)
    ji, kj = ji[other], kj[other]
    r_ji, r_jk = -vectors[ji], vectors[kj]
    cross = torch.linalg.cross(r_ji, r_jk)
    angle = torch.atan2(_length(cross), (r_ji * r_jk).sum(-1))
    return Angles(lengths, kj, ji, angle, _torsions(incoming, source, target, vectors, ji, kj, cross))


class _Incoming:
    """The edges into each atom, sources ascending."""

    def __init__(self, source: Tensor, target: Tensor, n_atoms: int):
        self.order = torch.argsort(target * n_atoms + source, stable=True)
        self.count = torch.bincount(target, minlength=n_atoms)
        self.first = self.count.cumsum(0) - self.count

    def join(self, rows: Tensor, atom: Tensor) -> tuple[Tensor, Tensor]:
        """Every row (R,) with every edge into its ``atom`` (R,): two lists of equal length."""
        count = self.count[atom]
        repeated = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
        step = torch.arange(len(repeated), device=rows.device) - (count.cumsum(0) - count)[repeated]
        return rows[repeated], self.order[self.first[atom][repeated] + step]


def _reverse(source, target, vectors, kj, ji) -> Tensor:
    """Whether an edge k -> j comes from the very i that j -> i goes to, not from another periodic image of it."""
    return (source[kj] == target[ji]) & ((vectors[kj] + vectors[ji]).square().sum(-1) < SAME_SQUARED)


def _torsions(incoming, source, target, vectors, ji, kj, p1) -> Tensor:
    rows, nj = incoming.join(torch.arange(len(ji), device=ji.device), source[ji])
    other = ~_reverse(source, target, vectors, nj, ji[rows]) & (nj != kj[rows])
    rows, nj = rows[other], nj[other]
    axis, r_jn = -vectors[ji[rows]], vectors[nj]
    p2 = torch.linalg.cross(axis, r_jn)
    off_axis = p2.square().sum(-1) > STRAIGHT * axis.square().sum(-1) * r_jn.square().sum(-1)
    rows, axis, p2 = rows[off_axis], axis[off_axis], p2[off_axis]
    p1 = p1[rows]
    height = (torch.linalg.cross(p1, p2) * axis).sum(-1) / axis.square().sum(-1).sqrt()
    phi = torch.atan2(height, (p1 * p2).sum(-1))
    phi = torch.where(phi <= FLAT, phi + 2 * pi, phi)
    return phi.new_full((len(ji),), 2 * pi).scatter_reduce(0, rows, phi, "amin")


def _length(v: Tensor) -> Tensor:
    squared = v.square().sum(-1)
    return torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)


@cache
def bessel_constants() -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Zeros z_ln of the spherical Bessel functions j_l rounded to float32 as in the release, and
    1 / sqrt(j_{l+1}(z_ln)^2 / 2); l < 3, n < 6.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import spherical_jn

    zeros, points = [], np.arange(1, RADIALS + DEGREES) * np.pi
    for l in range(DEGREES):
        if l:  # the zeros of j_l lie between those of j_{l-1}
            ends = zip(points[:-1], points[1:], strict=True)
            points = np.array([brentq(lambda x, l=l: spherical_jn(l, x), a, b, xtol=1e-14) for a, b in ends])
        zeros.append(points[:RADIALS].astype(np.float32).astype(float))
    scales = [1 / np.sqrt(0.5 * spherical_jn(l + 1, z) ** 2) for l, z in enumerate(zeros)]
    return tuple(map(tuple, zeros)), tuple(map(tuple, scales))


def bessel(x: Tensor) -> Tensor:
    """B_ln(x), (P,) -> (P, 3, 6); x = r / cutoff."""
    zeros, scales = (x.new_tensor(table) for table in bessel_constants())
    y = x.view(-1, 1, 1) * zeros
    sin, cos = y.sin(), y.cos()
    j0 = sin[:, 0] / y[:, 0]
    j1 = sin[:, 1] / y[:, 1] ** 2 - cos[:, 1] / y[:, 1]
    j2 = (3 / y[:, 2] ** 3 - 1 / y[:, 2]) * sin[:, 2] - 3 / y[:, 2] ** 2 * cos[:, 2]
    return torch.stack([j0, j1, j2], 1) * scales


def zonal(angle: Tensor) -> Tensor:
    """Y_l0, (T,) -> (T, 3)."""
    cos = angle.cos()
    y0 = torch.full_like(cos, 0.5 / sqrt(pi))
    return torch.stack([y0, sqrt(0.75 / pi) * cos, sqrt(5 / pi) / 4 * (3 * cos**2 - 1)], -1)


def harmonics(angle: Tensor, torsion: Tensor) -> Tensor:
    """Y00, Y10, Y11, Y1-1, Y20, Y21, Y22, Y2-2, Y2-1 with Condon-Shortley sign, (T,), (T,) -> (T, 9)."""
    y0, y10, y20 = zonal(angle).unbind(-1)
    sin, cos = angle.sin(), angle.cos()
    one, two = -sqrt(0.75 / pi) * sin, -sqrt(3.75 / pi) * sin * cos
    both = 0.5 * sqrt(3.75 / pi) * sin**2
    c, s, c2, s2 = torsion.cos(), torsion.sin(), (2 * torsion).cos(), (2 * torsion).sin()
    return torch.stack([y0, y10, one * c, one * s, y20, two * c, both * c2, both * s2, two * s], -1)
