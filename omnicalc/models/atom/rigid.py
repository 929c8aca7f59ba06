"""Motion of a molecule as one rigid body: the part of its future that needs no network.

Everything is batched, padded atoms have mass 0, and everything turns with the molecule.
"""

import torch
from torch import Tensor

_TURN = 0.1  # rad, largest turn within one step of the free rotor
_LINEAR = 1e-2  # of the largest moment of inertia, below which one counts as none: a linear molecule that bends


def centre(x: Tensor, masses: Tensor) -> Tensor:
    """Mass-weighted mean (B, 1, 3) of ``x`` (B, N, 3); ``masses`` (B, N)."""
    weights = masses / masses.sum(1, keepdim=True)
    return (weights[..., None] * x).sum(1, keepdim=True)


def inertia_inverse(x: Tensor, masses: Tensor) -> Tensor:
    """Inverse (B, 3, 3) of the inertia tensor of ``x`` about the origin, amu Å^2.

    An axis about which nothing can turn, as in a linear molecule or an atom, gets no angular velocity. Nor does that of
    a linear molecule that its vibrations bend: its small moment would turn their motion into a spin of no meaning.
    """
    weighted = masses[..., None] * x
    second = weighted.transpose(1, 2) @ x
    trace = second.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    inertia = trace * torch.eye(3, dtype=x.dtype, device=x.device) - second
    return torch.linalg.pinv(inertia, rtol=_LINEAR, hermitian=True)


def angular_momentum(x: Tensor, v: Tensor, masses: Tensor) -> Tensor:
    """(B, 3) amu Å^2/fs about the origin."""
    return (masses[..., None] * torch.linalg.cross(x, v)).sum(1)


def rotation(vector: Tensor) -> Tensor:
    """Rotation (..., 3, 3) by the angle |vector| about ``vector`` (..., 3), by Rodrigues' formula."""
    angle2 = vector.square().sum(-1)[..., None, None]
    angle = angle2.clamp_min(1e-30).sqrt()
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    first = torch.where(angle2 < 1e-12, 1 - angle2 / 6, angle.sin() / angle)
    second = torch.where(angle2 < 1e-12, 0.5 - angle2 / 24, (1 - angle.cos()) / angle2.clamp_min(1e-30))
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + first * k + second * k @ k


def constant_rotation(momentum: Tensor, inverse: Tensor, times: Tensor) -> Tensor:
    """Rotations (B, T, 3, 3) at ``times`` (B, T) fs with the angular velocity of the start."""
    omega = (inverse @ momentum[..., None])[..., 0]
    return rotation(omega[:, None] * times[..., None])


def free_rotation(momentum: Tensor, inverse: Tensor, times: Tensor) -> Tensor:
    """Rotations (B, T, 3, 3) of a free rigid body: its angular momentum stays, its angular velocity does not.

    dR/dt = [w] R with w = R I^-1 R^T L, by the classical Runge-Kutta method; ``times`` (B, T) fs, not falling. Each
    body has steps of its own, as many as its energy E asks for: |w| stays below (2 E / I_min)^(1/2).
    """
    gaps = torch.diff(times, dim=1, prepend=torch.zeros_like(times[:, :1]))
    one = torch.eye(3, dtype=times.dtype, device=times.device)
    now, column, found = one.expand(len(times), 3, 3), momentum[..., None], []
    with torch.no_grad():
        twice_energy = (column.transpose(1, 2) @ inverse @ column)[:, 0]
        fastest = (twice_energy * torch.linalg.matrix_norm(inverse, 2)[:, None]).clamp_min(0.0).sqrt()
        steps = (gaps * fastest / _TURN).ceil().clamp_min(1.0).nan_to_num(1.0, 1.0)  # (B, T)

    def slope(turned: Tensor) -> Tensor:
        omega = turned @ (inverse @ (turned.transpose(1, 2) @ column))
        return torch.linalg.cross(omega.expand(-1, 3, 3), turned, dim=1)

    for gap, own in zip(gaps.unbind(1), steps.unbind(1), strict=True):
        for k in range(int(own.max())):
            h = torch.where(k < own, gap / own, 0.0)[:, None, None]  # who has arrived stays
            a = slope(now)
            b = slope(now + 0.5 * h * a)
            c = slope(now + 0.5 * h * b)
            d = slope(now + h * c)
            now = now + h / 6 * (a + 2 * (b + c) + d)
        now = 0.5 * now @ (3 * one - now.transpose(1, 2) @ now)  # back to a rotation, from which it hardly differs
        found.append(now)
    return torch.stack(found, 1)


def superposed(moving: Tensor, fixed: Tensor, weights: Tensor) -> Tensor:
    """``moving`` (B, N, 3) turned and shifted onto ``fixed`` (B, N, 3), by least weighted squares (Kabsch)."""
    here, there = centre(moving, weights), centre(fixed, weights)
    a, b = moving - here, fixed - there
    u, _, vt = torch.linalg.svd((weights[..., None] * a).transpose(1, 2) @ b)
    sign = torch.linalg.det(u @ vt)
    flip = torch.ones_like(a[:, 0])
    flip[:, 2] = sign
    return a @ (u * flip[:, None]) @ vt + there
