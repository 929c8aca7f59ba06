"""Lennard-Jones argon as a whole :class:`Potential`: cheap, exact, with batches, stress and heads like any other."""

import torch
from torch import nn

from omnicalc.models.graph import Graph, ModelOutput
from omnicalc.potential import Head, Potential

EPSILON, SIGMA, CUTOFF = 0.0104, 3.4, 6.0  # eV, Å, Å


class PairModel(nn.Module):
    """U = sum over pairs of 4 epsilon [(sigma/r)^12 - (sigma/r)^6] (1 - (r/c)²)³."""

    cutoff, conservative = CUTOFF, True

    def __init__(self):
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(SIGMA, dtype=torch.float64), requires_grad=False)

    def forward(self, graph: Graph) -> ModelOutput:
        r2 = graph.vectors.square().sum(-1)
        six = (self.sigma**2 / r2) ** 3
        pair = 4 * EPSILON * (six * six - six) * (1 - r2 / CUTOFF**2).clamp(min=0) ** 3
        return ModelOutput(0.5 * torch.where(graph.mask, pair, 0.0).sum(-1))


def lennard_jones() -> Potential:
    potential = Potential(PairModel(), [Head("toy", {18: 0.0})])
    potential.name_resolved, potential.sha256 = "toy:pairs@1.0", "ab" * 32
    return potential
