"""The fused attention against its slow twin: value, first and second derivatives."""

import pytest
import torch

pytest.importorskip("triton")

from omnicalc.errors import InputError  # noqa: E402
from omnicalc.kernels import fused_attention as op  # noqa: E402
from omnicalc.kernels.edge_lists import EdgeLists  # noqa: E402
from omnicalc.kernels.fused_attention import Form, Tile, fused_attention  # noqa: E402
from tests.kernels.attention_case import errors, random_case  # noqa: E402

FIRST, ZERO, BOTH = (True, False), (False, True), (True, True)
ODD = Tile(2, 2, 1)  # neither 3 slots nor 3 heads are multiples


@pytest.fixture
def odd_tile(monkeypatch):
    monkeypatch.setattr(op, "tile", lambda *_: ODD)


@pytest.mark.parametrize(
    "kind, order, l_max",
    [
        ("softmax", FIRST, 1),
        ("softmax", BOTH, 2),
        ("softmax", ZERO, 2),
        ("softplus", FIRST, 2),
        ("softplus", BOTH, 1),
        ("sigmoid", ZERO, 1),
        ("sigmoid", FIRST, 2),
    ],
)
def test_equals_the_twin(odd_tile, kind, order, l_max):
    assert max(errors(random_case(Form(kind, *order), l_max=l_max))) < 1e-12


@pytest.mark.parametrize(
    "shape",
    [{"n": 1, "k": 2}, {"n": 1, "k": 0}, {"k": 0}, {"n": 0, "k": 0}, {"heads": 1, "multiplicity": 5}, {"ties": True}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["softmax", "softplus"])
def test_other_shapes(kind, shape):
    """One atom with and without its own images, no edges at all, no atoms, one head, tied maxima; the real tiles."""
    assert max(errors(random_case(Form(kind), **shape))) < 1e-12


def test_float32_and_large_scores(odd_tile):
    case = random_case(Form("softmax"), dtype=torch.float32)
    with torch.no_grad():
        case.inputs[3] *= 100  # exp(100) overflows, so only the running maximum keeps this finite
    value, *_ = errors(case)
    assert value < 1e-5


def test_half_precision_storage_rounds_keys_and_values_alone(odd_tile):
    case = random_case(Form("softmax", storage=torch.bfloat16), dtype=torch.float32)
    assert not torch.allclose(case.fused(*case.inputs), case.twin(*case.inputs), rtol=0, atol=1e-4)
    with torch.no_grad():
        for x in case.inputs[1:3]:
            x.copy_(x.bfloat16())
    assert max(errors(case)) < 1e-5


def test_edge_lists_hold_every_edge_once():
    index, mask = (
        torch.tensor([[1, 2, 1], [0, 0, 0], [2, 0, 1]]),
        torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0]]).bool(),
    )
    lists = EdgeLists.build(index, mask)
    assert lists.count.tolist() == [3, 2, 0]
    assert lists.source.tolist() == [[1, 2, 1], [-1, 0, -1], [-1, -1, -1]]
    leaving = [lists.edge[a:b].tolist() for a, b in zip(lists.pointer[:-1], lists.pointer[1:], strict=True)]
    assert leaving == [[4], [0, 2], [1]]


def test_what_is_wrong_is_named():
    case = random_case(Form("softmax"), dtype=torch.float32)
    edges = EdgeLists.build(case.index, case.mask)
    with pytest.raises(InputError, match="weights 'tanh' are not supported; choose one of: softmax, softplus, sigmoid"):
        fused_attention(*case.inputs, edges, Form("tanh"))
    with pytest.raises(InputError, match="all tensors in float32 or all in float64, not .*'v': 'bfloat16'"):
        fused_attention(*case.inputs[:2], case.inputs[2].bfloat16(), *case.inputs[3:], edges, Form())
    with pytest.raises(InputError, match="5 channels are no multiple of 3 attention heads"):
        fused_attention(*case.inputs[:2], case.inputs[2][..., :5], *case.inputs[3:], edges, Form())
