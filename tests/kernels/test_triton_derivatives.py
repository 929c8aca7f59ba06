"""Derivatives of the fused attention by finite differences, and mistakes in its kernels that the tests must notice."""

import importlib

import pytest
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

pytest.importorskip("triton")

import omnicalc.kernels  # noqa: E402
from omnicalc.kernels import fused_attention, triton_attention  # noqa: E402
from omnicalc.kernels.fused_attention import Form, Tile  # noqa: E402
from tests.kernels.attention_case import changed_copy, errors, random_case  # noqa: E402

STRICT = {"fast_mode": True, "rtol": 1e-6, "atol": 1e-8, "check_undefined_grad": False}


@pytest.fixture(autouse=True)
def tile(monkeypatch):
    """Three slots are no multiple of two edges."""
    monkeypatch.setattr(fused_attention, "tile", lambda *_: Tile(2, 2, 1))


@pytest.fixture
def mistake(monkeypatch, tmp_path):
    """Replaces a piece of the kernels; failing derivative checks then skip their long explanation."""
    checks = importlib.import_module("torch.autograd.gradcheck")
    monkeypatch.setattr(checks, "_run_slow_mode_and_get_error", lambda *_, **__: "derivatives differ")

    def make(old, new):
        monkeypatch.setattr(omnicalc.kernels, "triton_attention", changed_copy(triton_attention, tmp_path, old, new))

    return make


def small_case(kind="softmax", **shape):
    """One atom with three neighbours, and one with none."""
    return random_case(Form(kind), **{"n": 2, "heads": 1, "d": 2} | shape)


@pytest.mark.parametrize(
    "kind, shape", [("softmax", {}), ("softmax", {"l_max": 2, "n": 1}), ("softplus", {"l_max": 2, "n": 1})]
)
def test_derivatives_are_those_of_the_function_itself(kind, shape):
    case = small_case(kind, **shape)
    assert gradcheck(case.fused, case.inputs, **STRICT)
    assert gradgradcheck(case.fused, case.inputs, **STRICT)


VALUE, FIRST_DERIVATIVE, SECOND_DERIVATIVE = range(3)
WRONG = {
    "running maximum does not correct the sum": (VALUE, "total = total * fix + ", "total = total + "),
    "running maximum does not correct the moments": (VALUE, "x * fix[:, None, :], y *", "x, y *"),
    "maximum detached": (FIRST_DERIVATIVE, "ds = b1 * u * rest - tie\n", "ds = b1 * u * rest\n"),
    "normaliser constant": (FIRST_DERIVATIVE, "rest = f * da - mean\n", "rest = f * da\n"),
    "no plain order in the source pass": (
        FIRST_DERIVATIVE,
        "* gz + go\n        if TANGENT",
        "* gz\n        if TANGENT",
    ),
    "gradient of a tied maximum counted twice": (
        FIRST_DERIVATIVE,
        "/ tl.maximum(ties, 1.0)\n        for",
        "\n        for",
    ),
    "edge vector constant in the second derivative": (SECOND_DERIVATIVE, "+ a[:, None, :] * across", ""),
    "normaliser constant in the second derivative": (SECOND_DERIVATIVE, "b2 * s_t - shift * b1", "b2 * s_t"),
    "share of the maximum constant": (SECOND_DERIVATIVE, "at * (mean_t - mean * sum_t)", "at * mean_t"),
    "query constant in the second derivative": (SECOND_DERIVATIVE, " + c[:, :, None] * qi_t", ""),
    "value constant in the tangent": (SECOND_DERIVATIVE, "a_t * vj + a * vj_t", "a_t * vj"),
}


@pytest.mark.parametrize("order, old, new", WRONG.values(), ids=WRONG)
def test_a_wrong_kernel_is_noticed(mistake, order, old, new):
    """The first derivative that the mistake touches is wrong; those before it stay right."""
    mistake(old, new)
    found = errors(random_case(Form("softmax", zero=True), n=1, heads=2, d=2, ties="ties" in old))
    assert all(error < 1e-12 for error in found[:order])
    assert found[order] > 1e-6


def test_first_differences_notice_a_detached_maximum(mistake):
    mistake(*WRONG["maximum detached"][1:])
    case = small_case(n=1, k=2)
    with pytest.raises(GradcheckError):
        gradcheck(case.fused, case.inputs, **STRICT)


def test_second_differences_notice_a_constant_normaliser(mistake):
    mistake(*WRONG["normaliser constant in the second derivative"][1:])
    case = small_case(n=1, k=2)
    assert gradcheck(case.fused, case.inputs, **STRICT)
    with pytest.raises(GradcheckError):
        gradgradcheck(case.fused, case.inputs, **STRICT)
