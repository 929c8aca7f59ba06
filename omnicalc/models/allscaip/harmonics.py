"""Real spherical harmonics and Legendre polynomials of unit vectors, of any degree, by recursion.

Y_lm(u) in the order and phase of e3nn (m = -l..l, polar axis y, so that Y_1 = √3 (x, y, z)), of length √(2l+1):

    Y_lm = K_lm Π_l^m(y) A_m (m >= 0),  K_l|m| Π_l^|m|(y) B_|m| (m < 0),   A_m + i B_m = (z + i x)^m,
    Π_l^m = d^m P_l / dy^m,   (l - m) Π_l^m = (2l - 1) y Π_{l-1}^m - (l + m - 1) |u|² Π_{l-2}^m,
    K_lm = √((2l + 1) (2 - δ_m0) (l - m)! / (l + m)!).

All are homogeneous polynomials: at the zero vector, which stands for an atom seen from itself, Y_0 = 1 and the others
vanish.
"""

from math import factorial, sqrt

import torch
from torch import Tensor


def harmonics(unit: Tensor, degrees: int) -> Tensor:
    """Y_0 to Y_(degrees - 1) of unit (or zero) vectors (..., 3) -> (..., degrees²)."""
    x, y, z = unit.unbind(-1)
    square = unit.square().sum(-1, keepdim=True)
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]  # A_m, B_m
    for _ in range(degrees - 1):
        a, b = cosines[-1], sines[-1]
        cosines.append(z * a - x * b)
        sines.append(z * b + x * a)
    around = torch.stack([*sines[:0:-1], *cosines], -1)  # m = 1 - degrees .. degrees - 1
    rows = _polar(y.unsqueeze(-1), square, degrees)
    middle = degrees - 1
    parts = [
        torch.cat([row[..., 1:].flip(-1), row], -1) * around[..., middle - l : middle + l + 1]
        for l, row in enumerate(rows)
    ]
    return torch.cat(parts, -1)


def _polar(y: Tensor, square: Tensor, degrees: int) -> list[Tensor]:
    """K_lm Π_l^m(y) for m = 0..l, (..., l + 1), one tensor for each degree l; ``y`` and ``square`` (..., 1)."""
    rows = [torch.ones_like(y)]
    for l in range(1, degrees):
        up = [_K(l, m) / _K(l - 1, m) * (2 * l - 1) / (l - m) for m in range(l)]
        new = y * (rows[-1] * y.new_tensor(up))
        if l > 1:
            down = [_K(l, m) / _K(l - 2, m) * (l + m - 1) / (l - m) for m in range(l - 1)]
            below = square * (rows[-2] * y.new_tensor(down))
            new = new - torch.nn.functional.pad(below, (0, 1))
        top = torch.full_like(y, _K(l, l) * factorial(2 * l) / (2**l * factorial(l)))  # Π_l^l = (2l - 1)!!
        rows.append(torch.cat([new, top], -1))
    return rows


def _K(l: int, m: int) -> float:  # noqa: N802 (the formula's letter)
    return sqrt((2 * l + 1) * (2 if m else 1) * factorial(l - m) / factorial(l + m))


def legendre(cosine: Tensor, square: Tensor, degrees: int) -> list[Tensor]:
    """P_0 to P_(degrees - 1) of u·v, each shaped as ``cosine``; ``square`` = |u|² |v|², 1 or (of a zero vector) 0.

    Equals Y_l(u)·Y_l(v) / (2l + 1): at a zero vector 1 for l = 0 and 0 for the others.
    """
    found = [torch.ones_like(cosine), cosine]
    for l in range(2, degrees):
        found.append(((2 * l - 1) * cosine * found[-1] - (l - 1) * square * found[-2]) / l)
    return found[:degrees]
