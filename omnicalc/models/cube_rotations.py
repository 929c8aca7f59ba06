"""Rotations to average over, for models that do not give every orientation of a structure the same energy."""

import torch
from torch import Tensor

ROTATIONS = (1, 4, 12, 24)  # how many there can be


def rotation_set(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n, 3, 3): the proper rotations of a cube (24), of a tetrahedron (12), the three half turns (4), or none (1)."""
    found = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
            matrix = torch.diag(torch.tensor(signs, dtype=dtype))[list(order)]
            found.append(matrix * torch.linalg.det(matrix).round())
    return torch.stack(found[:n]).to(device)
