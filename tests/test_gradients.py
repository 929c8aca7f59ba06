"""Derivatives at edges and at positions and strain: the same numbers, by two routes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import omnicalc
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems
from tests.contracts.potential_contract import PotentialContract
from tests.contracts.structures import triclinic_waters, waters


class ByPositions(nn.Module):
    """A model of edges that asks for positions all the same, and has a term of its own in them."""

    uses_positions = True

    def __init__(self, model: nn.Module, weight: float = 0.0):
        super().__init__()
        self.model, self.weight = model, weight
        self.cutoff, self.conservative = model.cutoff, model.conservative

    def forward(self, graph):
        output = self.model(graph)
        spread = graph.positions.square().sum(1)  # from the centroid: what no short edge vector knows
        return replace(output, energies=output.energies + self.weight * spread.tanh())


def wrapped(dtype, weight=0.0) -> tuple[Potential, Potential]:
    right = omnicalc.load_potential("ubio-s3", device="cpu", dtype=dtype, kernel="torch")
    other = Potential(ByPositions(right.model, weight), list(right.heads.values()), charges=right.charges)
    return right, other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_routes_give_the_same(dtype):
    edges, positions = wrapped(dtype)
    systems = Systems.from_atoms([waters(3, None, seed=2), triclinic_waters()])
    found = neighbors(systems, edges.cutoff)
    a, b = (p(systems, found, head="pbe0-ts", stress=True) for p in (edges, positions))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert torch.allclose(a.energy, b.energy, rtol=0, atol=tolerance)
    assert (a.forces - b.forces).abs().max() < tolerance
    assert (a.stress[1] - b.stress[1]).abs().max() < tolerance
    assert b.stress[0].isnan().all()  # no cell, no volume
    _, wrong = wrapped(dtype, weight=0.01)
    assert (wrong(systems, found, head="pbe0-ts").forces - a.forces).abs().max() > tolerance


def test_forces_at_positions_can_be_trained_on():
    _, potential = wrapped(torch.float64)
    systems = Systems.from_atoms(waters(2, None, seed=1))
    weights = list(potential.requires_grad_(True).parameters())
    loss = potential(systems, neighbors(systems, 4.5), head="pbe0-ts", create_graph=True).forces.square().sum()
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in found)


class TestPositionsInTheEnergy(PotentialContract):
    """The contract where the energy depends on the distance from the centroid too."""

    head = "pbe0-ts"
    elements = ("H", "O")

    def make(self, dtype):
        return wrapped(dtype, weight=0.01)[1]

    def test_far_systems_add_up(self):
        pytest.skip("the centroid of two systems is another one")
