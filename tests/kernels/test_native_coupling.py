"""Sums over neighbours in the native kernel, in every form of first-order attention and on every instruction set."""

import pytest
import torch

from omnicalc.kernel_choice import KernelChoice
from omnicalc.models import build_model
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.contracts.structures import triclinic_waters
from tests.kernels.test_native import BUILT, library

FORMS = [(l_max, mirror, values) for l_max in (1, 2) for mirror in (True, False) for values in ("first-order", "both")]


def potential(l_max: int, mirror: bool, values: str) -> Potential:
    """Random weights with 40 channels: blocks of a vector in a pair, alone, and partly filled."""
    config = {
        "heads": ["a"], "elements": [1, 8], "channels": 40, "attention_heads": 8, "value_multiplicity": 4,
        "l_max": l_max, "mirror_symmetric": mirror, "values": [values, values],
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", config)
    with torch.no_grad():
        model.energy_heads["a"][-1].weight.mul_(100)
        for block in model.blocks:
            block.attention.value.weight.mul_(5)  # so that sums over neighbours matter
    return Potential(model, [Head("a", {1: 0.0, 8: 0.0})]).requires_grad_(False)


def forces(model: Potential, kernel: str) -> torch.Tensor:
    model.kernel = KernelChoice(kernel)
    return model.predict(Systems.from_atoms(triclinic_waters()), NeighborList(model.cutoff), head="a").forces


@pytest.mark.parametrize("instructions", BUILT)
@pytest.mark.parametrize("l_max, mirror, values", FORMS)
def test_every_form_agrees_with_float64(l_max, mirror, values, instructions, monkeypatch):
    monkeypatch.setenv(library.INSTRUCTIONS, instructions)
    fast = forces(potential(l_max, mirror, values), "native")
    assert (fast - forces(potential(l_max, mirror, values).double(), "torch")).abs().max() < 1.5e-5


@pytest.mark.parametrize("l_max, mirror, values", FORMS)
def test_the_sign_of_any_coupling_is_noticed(l_max, mirror, values):
    fast = forces(potential(l_max, mirror, values), "native")
    wrong = potential(l_max, mirror, values).double()
    for row in range(len(wrong.model.blocks[0].attention.aggregate.coupling)):
        wrong = potential(l_max, mirror, values).double()  # anew: what is made for a coupling is kept
        wrong.model.blocks[0].attention.aggregate.coupling[row] *= -1
        assert (fast - forces(wrong, "torch")).abs().max() > 2e-5
