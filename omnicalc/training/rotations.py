"""Structures in random orientations, for models whose predictions depend on it."""

from dataclasses import replace

import torch
from torch import Tensor

from omnicalc.training.example import Batch


def random_rotations(n: int, generator: torch.Generator | None = None) -> Tensor:
    """(n, 3, 3) float64 proper rotations, uniform: of unit quaternions (w, x, y, z) from four normal numbers."""
    q = torch.randn(n, 4, dtype=torch.float64, generator=generator)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def rotated(batch: Batch, turns: Tensor) -> Batch:
    """The same structures turned by ``turns`` (S, 3, 3), with cells, forces and stress turned along."""
    systems = batch.systems
    turns = turns.to(systems.positions.device)
    each = turns[systems.system]
    back = turns.transpose(1, 2)
    turned = replace(
        systems,
        positions=torch.einsum("nab,nb->na", each, systems.positions),
        cell=systems.cell @ back,
    )
    forces = torch.einsum("nab,nb->na", each, batch.forces)
    return replace(batch, systems=turned, forces=forces, stress=turns @ batch.stress @ back)
