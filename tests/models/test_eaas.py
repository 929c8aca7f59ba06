"""The release's EAAS route and dense products equal the edge form; what EAAS cannot do is seen to fail."""

import pytest
import torch

from omnicalc.models.e2former import eaas
from omnicalc.models.e2former.aggregate import aggregate
from omnicalc.models.e2former.angular import coupling_matrix, harmonics
from omnicalc.models.e2former.eaas import Images, dense_first_order, eaas_first_order, polar_rows, to_polar_axis

# The release's constants for l_max 2: for each path (l1, l3) the rows taken and their weights.
RELEASED = {
    (1, 0): ([2], [0.57735]),
    (0, 1): ([0, 0, 0], [0, 1, 0]),
    (1, 1): ([3, 0, 1], [-0.70711, 0, 0.70711]),
    (2, 1): ([5, 6, 7], [0.54772, 0.63246, 0.54772]),
    (1, 2): ([0, 1, 2, 3, 0], [0, 0.70711, 0.81650, 0.70711, 0]),
    (2, 2): ([8, 7, 0, 5, 4], [-0.81650, -0.40825, 0, 0.40825, 0.81650]),
}


class Box:
    """Random atoms in a skewed periodic box; 7 neighbours each, among them images of the atom itself."""

    def __init__(self, l_max, n=5, k=7, heads=3, channels=6):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.positions = (2 * normal(n, 3)).requires_grad_()
        self.cell = 4 * torch.eye(3, dtype=torch.float64) + 0.3 * normal(3, 3)
        self.index = torch.randint(n, (n, k), generator=generator)
        self.shift = torch.randint(-1, 2, (n, k, 3), generator=generator).double()
        self.shift[:, 0], self.index[:, 0] = torch.tensor([0.0, 1.0, 0.0]), torch.arange(n)
        same = (self.index == torch.arange(n).unsqueeze(1)) & (self.shift == 0).all(-1)
        self.shift[same] = 1.0
        self.alpha = normal(n, heads, k)
        self.value = normal(n, (l_max + 1) ** 2, channels)
        self.l_max = l_max

    @property
    def vectors(self):
        return self.positions.unsqueeze(1) - self.positions[self.index] - self.shift @ self.cell

    @property
    def distances(self):
        return self.vectors.norm(dim=-1)

    def edge(self, mirror):
        unit = self.vectors / self.distances.unsqueeze(-1)
        weights = self.alpha.unsqueeze(2) * unit.transpose(1, 2).unsqueeze(1)
        moments = aggregate(weights, self.value, self.index).flatten(1, 2)
        return coupling_matrix(self.l_max, mirror, False) @ moments

    def dense(self, mirror):
        unit = self.vectors / self.distances.unsqueeze(-1)
        return dense_first_order(self.alpha, unit, self.value, self.index, mirror)

    def eaas(self, mirror):
        images = Images.build(self.positions, self.vectors, self.index, self.shift)
        return eaas_first_order(self.alpha, self.distances, self.value, self.positions, images, mirror)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("l_max", [1, 2])
def test_three_routes_agree(l_max, mirror):
    box = Box(l_max)
    edge, dense, released = box.edge(mirror), box.dense(mirror), box.eaas(mirror)
    scale = edge.abs().max()
    assert (dense - edge).abs().max() < 1e-12 * scale
    assert (released - edge).abs().max() < 1e-12 * scale


@pytest.mark.parametrize("l_max", [1, 2])
def test_gradients_by_positions_agree(l_max):
    box = Box(l_max)
    direction = torch.randn_like(box.edge(False))
    gradients = [torch.autograd.grad(f(False), box.positions, direction)[0] for f in (box.edge, box.dense, box.eaas)]
    for other in gradients[1:]:
        assert (other - gradients[0]).abs().max() < 1e-12 * gradients[0].abs().max()


def test_rows_and_weights_are_those_of_the_release():
    for (l1, l3), (rows, weights) in RELEASED.items():
        found, scale = polar_rows(l1, l3)
        assert found.tolist() == rows
        assert torch.allclose(scale, torch.tensor(weights, dtype=torch.float64), rtol=0, atol=5e-6)


def test_rotations_turn_vectors_onto_the_polar_axis():
    vectors = torch.randn(20, 3, dtype=torch.float64)
    axis = harmonics(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), 2)
    turned = harmonics(vectors / vectors.norm(dim=-1, keepdim=True), 2)
    for l, matrices in enumerate(to_polar_axis(vectors, 2)):
        rows = slice(l * l, (l + 1) ** 2)
        assert torch.allclose((matrices @ turned[:, rows, None]).squeeze(-1), axis[rows].expand(20, -1), atol=1e-13)
        assert torch.allclose(matrices @ matrices.transpose(1, 2), torch.eye(2 * l + 1).double(), atol=1e-13)


@pytest.mark.parametrize("mistake", ["polar_rows", "_half_turn"])
def test_a_wrong_route_is_noticed(monkeypatch, mistake):
    right = getattr(eaas, mistake)
    if mistake == "polar_rows":  # weights of m3 and -m3 exchanged, which the even paths alone would not show
        monkeypatch.setattr(eaas, mistake, lambda l1, l3: (right(l1, l3)[0], right(l1, l3)[1].flip(0)))
    else:  # the polar axis stays where it is, in degree 2
        monkeypatch.setattr(eaas, mistake, lambda l: right(l) if l < 2 else torch.eye(5).double())
    box = Box(2)
    assert (box.eaas(False) - box.edge(False)).abs().max() > 1e-3


def test_the_edge_form_has_no_blind_axis():
    """An atom on the y axis: the energy of EAAS is right there and its gradient is not; the edge form has both."""
    box = Box(1)
    with torch.no_grad():
        box.positions[0] = torch.tensor([0.0, 1.5, 0.0])
    assert torch.allclose(box.eaas(False), box.edge(False), rtol=0, atol=1e-12)
    blind = torch.autograd.grad(box.eaas(False).sum(), box.positions)[0][0]
    seeing = torch.autograd.grad(box.edge(False).sum(), box.positions)[0][0]
    assert not torch.allclose(blind, seeing)
    assert seeing.isfinite().all()


def test_eaas_loses_digits_far_from_the_origin():
    def error(shift):
        box = Box(2)
        with torch.no_grad():
            box.positions += shift
        return (box.eaas(False) - box.edge(False)).abs().max()

    assert error(1e4) > 100 * error(0.0)
