"""The radial network with slopes equals the plain network: values, slopes, and the gradients that training takes."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from omnicalc.kernels.native import edges
from omnicalc.kernels.native.attention import why_not
from omnicalc.models.e2former.layers import BesselBasis, GaussianBasis, PairRadial
from omnicalc.models.e2former.radial_network import radial_network

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native libraries")


@pytest.fixture(params=[BesselBasis, GaussianBasis])
def case(request):
    """Basis, network, distances and pairs of elements."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PairRadial(5, 2, 6, 7).double()
        r = (torch.rand(4, dtype=torch.float64) * 3 + 1).requires_grad_()
    return request.param(4.5, 5), network, r, torch.tensor([0, 1, 3, 3])


def plain(basis, network, r, pair):
    return network.of_pairs(basis(r).to(r.dtype), pair)


def with_slopes(basis, network, r, pair):
    return radial_network(r, pair, basis, network)


def trained(function, basis, network, r, pair):
    """Values, their slopes, and gradients of a loss of both by distances and weights."""
    out = function(basis, network, r, pair)
    (force,) = torch.autograd.grad(out.square().sum(), r, create_graph=True)
    loss = (force * torch.arange(1, 5)).square().sum() + out.sin().sum()
    return [out, force, *torch.autograd.grad(loss, [r, *network.parameters()])]


def largest_difference(first, second) -> float:
    return max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in zip(first, second, strict=True))


def test_equals_the_plain_network(case):
    assert largest_difference(trained(with_slopes, *case), trained(plain, *case)) < 1e-12


def test_float32(case):
    basis, network, r, pair = case
    single = (basis, network.float(), r.detach().float().requires_grad_(), pair)
    assert largest_difference(trained(with_slopes, *single), trained(plain, *single)) < 1e-5


def test_derivatives_by_distance(case):
    basis, network, r, pair = case
    assert gradcheck(lambda r: radial_network(r, pair, basis, network), (r,))
    assert gradgradcheck(lambda r: radial_network(r, pair, basis, network), (r,))


def test_energy_alone(case):
    basis, network, r, pair = case
    found, expected = (
        torch.autograd.grad(f(basis, network, r, pair).square().sum(), [r, *network.parameters()])
        for f in (with_slopes, plain)
    )
    assert largest_difference(found, expected) < 1e-12


def test_a_third_derivative_is_refused(case):
    basis, network, r, pair = case
    out = radial_network(r, pair, basis, network)
    (force,) = torch.autograd.grad(out.square().sum(), r, create_graph=True)
    (slope,) = torch.autograd.grad(force.sum(), network.last.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


def test_a_lost_curvature_is_noticed(case, monkeypatch):
    right = edges.silu_pair_backward

    def wrong(h, gradient):
        return right(torch.stack([h[0], torch.zeros_like(h[1])]), gradient)

    monkeypatch.setattr("omnicalc.models.e2former.radial_network.silu_pair_backward", wrong)
    assert largest_difference(trained(with_slopes, *case), trained(plain, *case)) > 1e-3


@pytest.mark.parametrize("rows, channels", [(9, 4), (4, 20), (9, 16)])
def test_sums_of_edges(rows, channels):
    """Also as a slice of wider rows, and for an atom without edges."""
    generator = torch.Generator().manual_seed(1)
    degrees = round(rows**0.5)
    begin, target = torch.tensor([0, 2, 2, 5]), torch.tensor([0, 0, 2, 2, 2])
    degree = torch.tensor([l for l in range(degrees) for _ in range(2 * l + 1)])
    angular, wide = (
        torch.randn(5, width, dtype=torch.float64, generator=generator, requires_grad=True)
        for width in (rows, degrees * channels + 3)
    )

    def summed(a, b):
        return edges.edge_sum(a, b[:, : degrees * channels], begin)

    terms = angular.unsqueeze(-1) * wide[:, : degrees * channels].view(5, degrees, channels)[:, degree]
    expected = terms.new_zeros(3, rows, channels).index_add(0, target, terms)
    assert torch.allclose(summed(angular, wide), expected, rtol=0, atol=1e-14)
    assert not torch.allclose(summed(angular, wide.roll(1, 1)), expected, atol=1e-3)
    fast = {"fast_mode": True}
    assert gradcheck(summed, (angular, wide), **fast)
    assert gradgradcheck(summed, (angular, wide), **fast)
