"""The native attention: its slow twin, its derivatives, any number of threads, and plain torch where it is absent."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

pytest.importorskip("triton")  # the slow twin stands beside Triton's kernels

from omnicalc.kernels.edge_lists import EdgeLists, FlatEdges  # noqa: E402
from omnicalc.kernels.fused_attention import Form  # noqa: E402
from omnicalc.kernels.native import attention as module  # noqa: E402
from omnicalc.kernels.native import build, library  # noqa: E402
from omnicalc.kernels.native.attention import NativeLaunches  # noqa: E402
from omnicalc.models import build_model  # noqa: E402
from omnicalc.models.e2former.attention import Attention, ZeroOrderValue  # noqa: E402
from tests.kernels.attention_case import NAMES, errors, random_case  # noqa: E402

FIRST, ZERO, BOTH = (True, False), (False, True), (True, True)
BUILT = [name for name in library._supported() if build.library(name, build.ATTENTION).exists()]
SIZES = [
    {},
    {"l_max": 2, "heads": 8, "multiplicity": 4, "n": 20, "k": 9},  # whole vectors of channels
    {"l_max": 2, "heads": 3, "multiplicity": 7},  # and a rest
    {"heads": 1, "multiplicity": 5},
    {"n": 1, "k": 2},
    {"n": 1, "k": 0},
    {"n": 0, "k": 0},
    {"ties": True},
]


def case(kind="softplus", order=BOTH, **shape):
    found = random_case(Form(kind, *order), **shape)
    found.edges = FlatEdges
    return found


def test_all_are_built():
    assert set(BUILT) == set(library._supported())


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["softmax", "softplus", "sigmoid"])
def test_equals_the_twin(instructions, name, kind, shape):
    """One atom with and without its own images, no edges at all, no atoms, tied maxima."""
    instructions(name)
    for order in (FIRST, ZERO, BOTH):
        assert max(errors(case(kind, order, **shape))) < 1e-12
        assert max(errors(case(kind, order, dtype=torch.float32, **shape))) < 1e-5


@pytest.mark.parametrize("kind", ["softmax", "softplus", "sigmoid"])
def test_derivatives_are_those_of_the_function_itself(kind):
    small = case(kind, n=2, heads=1, d=2, l_max=2)
    assert gradcheck(small.fused, small.inputs, rtol=1e-6, atol=1e-8)
    assert gradgradcheck(small.fused, small.inputs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_term_of_the_second_derivative_is_noticed(name, monkeypatch):
    """One input is held constant there; the moments and their gradients stay right."""
    right = NativeLaunches.backward

    def wrong(self, grad, top, total, direction=None):
        if direction is not None:
            direction = [x * (n != name) for x, n in zip(direction, NAMES, strict=True)]
        return right(self, grad, top, total, direction)

    monkeypatch.setattr(NativeLaunches, "backward", wrong)
    value, first, second = errors(case())
    assert value < 1e-12 and first < 1e-12 and second > 1e-3


def test_a_lost_edge_is_noticed(monkeypatch):
    build_lists = FlatEdges.build

    def lossy(index, mask):
        return build_lists(index, mask & (torch.arange(mask.shape[1]) > 0))

    monkeypatch.setattr(FlatEdges, "build", lossy)
    assert errors(case())[0] > 1e-3


@pytest.mark.parametrize("name", BUILT)
def test_large_scores(instructions, name):
    """They stay finite (e^100 overflows), and the largest is found again where derivatives are taken."""
    instructions(name)
    for dtype, most in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        large = case("softmax", dtype=dtype)
        with torch.no_grad():
            large.inputs[3] *= 100
        assert max(errors(large)) < most


def test_slices_of_wider_rows_are_read_in_place():
    """Gate and factor come from one radial network, side by side."""
    apart, together = case(n=4), case(n=4)
    wide = torch.cat([together.inputs[3], together.inputs[4]], -1).detach().requires_grad_()
    gate, factor = wide.chunk(2, -1)
    found = together.fused(*together.inputs[:3], gate, factor, *together.inputs[5:])
    expected = apart.fused(*apart.inputs)
    assert torch.equal(found, expected)
    (slope,) = torch.autograd.grad(found.square().sum(), wide)
    both = torch.autograd.grad(expected.square().sum(), apart.inputs[3:5])
    assert torch.equal(slope, torch.cat(both, -1))


def test_threads_do_not_change_a_bit():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            many = case(n=50, k=9, heads=8, l_max=2, dtype=torch.float32)
            found.append(second_derivatives(many))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def second_derivatives(many):
    first = torch.autograd.grad(many.fused(*many.inputs).square().sum(), many.inputs, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in first), many.inputs)


def test_edges_are_the_same_as_tritons():
    index = torch.tensor([[1, 2, 1], [0, 0, 0], [2, 0, 1]])
    mask = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0]]).bool()
    flat, dense = FlatEdges.build(index, mask), EdgeLists.build(index, mask)
    assert flat.begin.tolist() == [0, 3, 4, 4]
    assert flat.source.tolist() == dense.source[mask].tolist()
    assert flat.target.tolist() == [0, 0, 0, 1]
    assert flat.leaving.tolist() == dense.pointer.tolist()
    assert flat.number[flat.edge].tolist() == dense.edge[:4].tolist()


def test_without_a_library_torch_does_it(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library", lambda name, source: tmp_path / name)
    forget()
    try:
        assert "not built" in module.why_not()
        attention = Attention(ZeroOrderValue(1, 4), 1, 4, 2, 2, "softplus")
        assert attention.kernel_edges(torch.zeros(1, 4, 4), None) is None
    finally:
        forget()
    monkeypatch.undo()
    assert module.why_not() is None


def test_training_without_a_library_says_so(monkeypatch):
    network = build_model("e2former", {"heads": ["a"], "elements": [1, 8]})
    cpu = torch.device("cpu")
    assert network.training_notice(cpu) is None
    monkeypatch.setattr("omnicalc.models.e2former.model.why_not", lambda: "not built")
    assert network.training_notice(cpu) == "training in plain torch, at about half the speed: not built"


def forget():
    for kept in (module.why_not, module.library):
        kept.cache_clear()
