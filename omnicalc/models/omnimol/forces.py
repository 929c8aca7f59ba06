"""What is done to directly predicted forces: no net force, no torque. Å, eV/Å."""

import torch
from torch import Tensor

from omnicalc.autocast import without_autocast
from omnicalc.models.omnimol.molecule import centred, means


def without_net_force(forces: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """Forces (N, 3) less their mean over each molecule."""
    return forces - means(forces, system, n_systems)[system]


def without_torque(forces: Tensor, positions: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """Forces (N, 3) less w x d, with d from the centroid and I w = sum d x f, I = sum (d^2 1 - d d^T).

    That is the least change (in sum of squares) that leaves no torque; with forces that add up to zero they still do.
    Linear molecules and atoms have no moment of inertia about some axes, and there nothing is changed.
    """
    with without_autocast(forces.device):  # half precision would leave a torque
        d = centred(positions, system, n_systems)
        torque = d.new_zeros(n_systems, 3).index_add(0, system, torch.linalg.cross(d, forces.to(d)))
        outer = d.unsqueeze(2) * d.unsqueeze(1)
        one = torch.eye(3, dtype=d.dtype, device=d.device)
        inertia = d.square().sum(1)[:, None, None] * one - outer
        inertia = d.new_zeros(n_systems, 3, 3).index_add(0, system, inertia)
        turn = torch.linalg.pinv(inertia, rtol=1e-6, hermitian=True) @ torque.unsqueeze(-1)
        return forces - torch.linalg.cross(turn.squeeze(-1)[system], d)
