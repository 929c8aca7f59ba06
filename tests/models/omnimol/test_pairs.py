"""Pair functions where they are dangerous: at zero, at the cutoff, far away, in float32."""

import numpy as np
import pytest
import torch

from omnicalc.models.omnimol.pairs import (
    cosines,
    distances_of,
    envelope,
    in_chunks,
    legendre,
    pair_features,
    softened,
)
from omnicalc.models.omnimol.transformer import LocalBlock, nearest

SIGMAS = torch.linspace(0.1, 10, 31)


def test_envelope_is_never_negative_and_smooth():
    for dtype in (torch.float32, torch.float64):
        r = torch.linspace(5.9, 6.1, 100001, dtype=dtype)
        assert (envelope(r, 6.0) >= 0).all() and envelope(r[r >= 6], 6.0).abs().max() == 0
    u = torch.linspace(5.9, 6.0, 100001, dtype=torch.float32) / 6
    assert (1 - 10 * u**3 + 15 * u**4 - 6 * u**5 < 0).any()  # the wrong variant: the sum as it is printed
    r = torch.tensor([0.0, 6.0], dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(envelope(r, 6.0).sum(), r, create_graph=True)[0]
    bend = torch.autograd.grad(slope.sum(), r)[0]
    assert slope.abs().max() == 0 and bend.abs().max() == 0


def test_softened():
    r = torch.tensor([1e-3, 0.2, 0.5, 0.74, 3.0, 5000.0])
    found = softened(r, 0.5)
    exact = (r.double() ** 12 + 0.5**12) ** (1 / 12)
    assert torch.allclose(found.double(), exact, rtol=1e-6)
    assert torch.equal(softened(r, 0.0), r)
    assert abs((found[3] / r[3]) ** -6 - 1) < 5e-3  # 1/r^6 of a hydrogen molecule changes by less than 0.5 %
    assert not torch.isfinite((r**12 + 0.5**12) ** (1 / 12)).all()  # the wrong variant overflows
    r = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: softened(x, 0.5)[::2], r)
    middle = torch.autograd.grad(softened(r, 0.5).sum(), r)[0][1].item()
    assert middle == pytest.approx(0.5 * 2 ** (1 / 12), rel=1e-12)  # where a clamp would count twice


@pytest.mark.parametrize("core", [0.0, 0.5])
def test_gradients_are_finite_where_there_is_no_pair(core):
    delta = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([False, True])
    found = pair_features(delta, keep, torch.ones(2), SIGMAS.double(), core=core)
    assert found.shape == (2, 41) and (found[0] == 0).all()
    slope = torch.autograd.grad(found.sum(), delta, create_graph=True)[0]
    again = torch.autograd.grad(slope.square().sum(), delta)[0]
    assert torch.isfinite(slope).all() and torch.isfinite(again).all() and (again[0] == 0).all()
    naive = torch.where(keep, 1 / delta.norm(dim=-1), 0.0)  # the wrong variant
    assert not torch.isfinite(torch.autograd.grad(naive.sum(), delta)[0]).all()


def test_nearest_orders_and_pads():
    r = torch.tensor([[2.0, 1.0, 1.0, 3.0]])
    index, mask = nearest(r, torch.tensor([[True, True, True, False]]), 6)
    assert index.tolist() == [[1, 2, 0, 0]] and mask.tolist() == [[True, True, True, False]]


def test_angles():
    delta = torch.tensor([[[1.0, 0, 0], [0, 2.0, 0], [-3.0, 0, 0], [9.0, 9, 9]]])
    cos = cosines(delta, torch.tensor([[True, True, True, False]]))
    assert torch.allclose(cos[0], torch.tensor([[1.0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 0]]))
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    wanted = np.stack([np.polynomial.Legendre.basis(l)(x.numpy()) for l in range(1, 6)], -1)
    assert np.abs(legendre(x, 5).numpy() - wanted).max() < 1e-14


def test_local_block_without_neighbours_gives_zero():
    torch.manual_seed(0)
    block = LocalBlock(5, 8, 16, 2, 1)
    features, keep = torch.randn(3, 4, 5), torch.zeros(3, 4, dtype=torch.bool)
    keep[0] = True
    found = block(features, keep, 1e-9)
    assert torch.isfinite(found).all() and found[0].abs().max() > 0 and (found[1:] == 0).all()


def test_chunks_give_the_same():
    x = torch.randn(7, 3, requires_grad=True)
    whole, parts = (in_chunks(lambda s: x[s].square().cumsum(1), 7, n, 0) for n in (7, 2))
    assert torch.equal(whole, parts)
    slopes = [torch.autograd.grad(y.square().sum(), x)[0] for y in (whole, parts)]
    assert torch.equal(*slopes)


def test_distances_are_differences_not_products():
    """Gram-form distances lose digits in float32 for points far from the origin; these do not."""
    torch.manual_seed(0)
    a = 999 + 0.5 * torch.rand(100, 3)
    b = a + torch.tensor([0.0, 0.5, 0.0])
    gram = (a.square().sum(1) + b.square().sum(1) - 2 * (a * b).sum(1)).clamp(min=0).sqrt()
    assert (distances_of(a - b, torch.ones(100, dtype=torch.bool)) - 0.5).abs().max() < 1e-4
    assert (gram - 0.5).abs().max() > 1e-2
