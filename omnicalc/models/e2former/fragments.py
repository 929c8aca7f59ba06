"""Fragments: what the long-range blocks see from afar, a heavy atom and the hydrogens bound to it.

The UBio-MolFM report (arXiv:2602.17709) lets atoms attend to fragments within about 15 Å; its release builds them on a
grid of absolute positions, so that energies change in steps when a molecule moves. Here hydrogen h belongs to heavy
atom A with the smooth share

    w_hA = u(r_hA) / (sum_B u(r_hB) + 1e-3),    u the envelope with radius ``fragment_radius``,

and the fragment's features, at the place of A, are

    p_A = x_A + W [sum_h w_hA x_h]  +  degree 1: sum_h w_hA rhat_hA V x_h(0),

so a dipole moment can be told from the directions of its bonds. Nothing depends on the origin, on orientation, or on
a list of molecules, and a proton on its way from one atom to another passes smoothly. A hydrogen without a heavy atom
near it (H2) is no part of any fragment: it is not seen from afar. The number of edges is linear in the number of atoms.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.e2former.layers import SO3Linear, envelope
from omnicalc.models.graph import Graph

_EPSILON = 1e-3  # keeps the shares of a hydrogen that leaves its last heavy atom going to zero


class Fragments:
    """Shares and bond directions of the hydrogens of every heavy atom; M slots, the most that one of them has."""

    def __init__(self, graph: Graph, radius: float):
        heavy = graph.numbers > 1
        bond = (graph.distances < radius) & ~heavy[:, None] & heavy[graph.index]  # rows are the hydrogens
        step = torch.where(bond, envelope(graph.distances, radius, "poly7"), 0.0)
        share = step / (step.sum(1, keepdim=True) + _EPSILON)
        self.hydrogen, slot = bond.nonzero(as_tuple=True)
        self.heavy = graph.index[self.hydrogen, slot]
        self.share = share[self.hydrogen, slot]
        vectors = graph.vectors[self.hydrogen, slot]
        self.unit = vectors / graph.distances[self.hydrogen, slot].unsqueeze(-1)


class FragmentPool(nn.Module):
    """Features of atoms to features of fragments, each at its heavy atom; rows of hydrogens are left as they are."""

    def __init__(self, l_max: int, channels: int):
        super().__init__()
        self.members = SO3Linear(l_max, channels, channels, bias=False)
        self.bonds = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, fragments: Fragments) -> Tensor:
        """(N, rows, C) -> (N, rows, C)."""
        member = x.index_select(0, fragments.hydrogen)
        dipole = fragments.unit.unsqueeze(-1) * self.bonds(member[:, 0]).unsqueeze(1)
        added = self.members(member) + F.pad(dipole, (0, 0, 1, x.shape[1] - 4))
        return x.index_add(0, fragments.heavy, added * fragments.share[:, None, None])
