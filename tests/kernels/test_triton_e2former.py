"""A whole E2Former on the fused attention, Triton's or a CPU's own, equals itself on torch operations."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from omnicalc.kernels.fused_attention import fused_attention  # noqa: E402
from omnicalc.kernels.native.attention import why_not  # noqa: E402
from omnicalc.models import build_model  # noqa: E402
from omnicalc.models.e2former import attention  # noqa: E402
from omnicalc.models.e2former.attention import Attention  # noqa: E402
from omnicalc.neighbors import neighbors  # noqa: E402
from omnicalc.potential import Head, Potential  # noqa: E402
from omnicalc.training.example import Batch, Totals  # noqa: E402
from omnicalc.training.objectives import StepInfo, build_objective  # noqa: E402
from omnicalc.training.recipe import Stage  # noqa: E402
from tests.contracts.structures import water_and_a_far_atom  # noqa: E402
from tests.kernels.attention_case import DEVICE  # noqa: E402

SMALL = {"channels": 4, "attention_heads": 2, "query_width": 4, "value_multiplicity": 2, "cutoff": 2.6, "n_basis": 4}
CONFIGS = {
    "softmax, both orders, l_max 2": {"weights": "softmax", "values": ["both"], "layers": 1},
    "softplus, two blocks, l_max 1": {"l_max": 1, "values": ["first-order", "zero-order"], "layers": 2},
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def potential(request):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build_model("e2former", {"heads": ["a"], "elements": [1, 8], **SMALL, **request.param})
        for parameter in model.parameters():  # the usual ones make all scores nearly equal
            torch.nn.init.normal_(parameter, std=0.7)
    return Potential(model.double().to(DEVICE), [Head("a", {1: 0.0, 8: 0.0})])


def predicted(potential, fused: bool, monkeypatch):
    monkeypatch.setattr(Attention, "fused", fused)
    systems = water_and_a_far_atom(DEVICE)
    result = potential(systems, neighbors(systems, potential.cutoff), head="a", stress=True)
    return [x.detach().cpu().numpy() for x in (result.energies, result.forces, result.stress)]


def trained(potential, fused: bool, monkeypatch):
    monkeypatch.setattr(Attention, "fused", fused)
    systems = water_and_a_far_atom(DEVICE)
    found = neighbors(systems, potential.cutoff)
    n = len(systems.numbers)
    one = torch.ones(1, dtype=torch.float64, device=DEVICE)
    batch = Batch(
        systems=systems,
        neighbors=found,
        head=systems.numbers.new_zeros(1),
        energy=one,
        energy_weight=one,
        forces=torch.zeros_like(systems.positions),
        force_weight=one.expand(n),
        stress=one.new_zeros(1, 3, 3),
        stress_weight=one * 0,
    )
    info = StepInfo(Stage(steps=1), 0.5, Totals(1, n, 1, 1, n, 0), None)
    loss, terms = build_objective({}).loss(potential.model, batch, info)
    gradients = torch.autograd.grad(loss, list(potential.model.parameters()))
    return [x.detach().cpu().numpy() for x in (*terms.values(), *gradients)]


@pytest.mark.parametrize("fused", [True, None], ids=["Triton's", "the device's own"])
@pytest.mark.parametrize("quantities", [predicted, trained])
def test_equals_torch(potential, quantities, fused, monkeypatch):
    pairs = zip(quantities(potential, fused, monkeypatch), quantities(potential, False, monkeypatch), strict=True)
    for fused, plain in pairs:
        assert np.abs(plain).max() < 1e3
        np.testing.assert_allclose(fused, plain, rtol=1e-10, atol=1e-11)


def test_the_switch_turns_the_kernels_on_and_off(potential, monkeypatch):
    """And so the comparison above has two sides."""
    calls = []
    monkeypatch.setattr(attention, "fused_attention", lambda *inputs: calls.append(1) or fused_attention(*inputs))
    for choice in (False, None, True):
        predicted(potential, choice, monkeypatch)
        # left to itself, float64 on a GPU is plain torch's
        expected = choice or (choice is None and DEVICE == "cpu" and why_not() is None)
        assert len(calls) == (len(potential.model.blocks) if expected else 0)
        calls.clear()


def test_a_wrong_kernel_shows_in_the_forces(potential, monkeypatch):
    right = predicted(potential, False, monkeypatch)
    monkeypatch.setattr(attention, "fused_attention", lambda q, *rest: fused_attention(q.detach(), *rest))
    wrong = predicted(potential, True, monkeypatch)
    np.testing.assert_allclose(wrong[0], right[0], rtol=1e-10, atol=1e-11)
    assert np.abs(wrong[1] - right[1]).max() > 1e-6
