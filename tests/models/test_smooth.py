"""The smooth variant of a published network has no jumps; the published network, scanned the same way, has both."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms

from omnicalc.models.e2former import E2Former, from_published
from omnicalc.models.e2former.attention import attention_weights
from omnicalc.models.e2former.smooth import KIND, ONSET, changes, fade, smoothed
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.published.files import CASES, published_config, published_tensors

STEP = 1e-9  # Å, to either side of where a jump is


def potentials(cap: int | None = None) -> dict[str, Potential]:
    """The published network of one golden case, with a cap of its own, and its smooth variant."""
    case = CASES / "water_qk_l2"
    config = published_config(case)
    if cap is not None:
        config["backbone_config"]["max_neighbors"] = cap
    published = from_published(config, published_tensors(case))
    smooth = E2Former(smoothed(published.config)).double()
    smooth.load_state_dict(published.state_dict())
    heads = [Head(name, dict.fromkeys(range(119), 0.0)) for name in published.config.heads]
    return {"published": Potential(published, heads), "smooth": Potential(smooth, heads)}


def jump(potential: Potential, before: Atoms, after: Atoms) -> tuple[float, float]:
    """Difference in energy, and the largest in forces."""
    results = []
    for atoms in (before, after):
        systems = Systems.from_atoms(atoms)
        results.append(potential(systems, neighbors(systems, potential.cutoff), head="omol25"))
    energy = (results[0].energy - results[1].energy).abs().item()
    return energy, (results[0].forces - results[1].forces).abs().max().item()


def test_a_neighbour_crosses_the_cutoff():
    def ion_at(distance):
        return Atoms("OH2Na", [(0, 0, 0), (0.76, -0.59, 0), (-0.76, -0.59, 0), (0, distance, 0)])

    both = potentials()
    found = {k: jump(p, ion_at(p.cutoff - STEP), ion_at(p.cutoff + STEP)) for k, p in both.items()}
    assert found["published"][0] > 1e-6 and found["smooth"][0] < 1e-9
    assert found["smooth"][1] < 1e-6


def test_the_last_neighbour_leaves():
    """Down to the isolated atom the energy is continuous: normalising weights must not keep it in."""

    def pair_at(distance):
        return Atoms("ONa", [(0, 0, 0), (0, distance, 0)])

    smooth = potentials()["smooth"]
    energy, forces = jump(smooth, pair_at(smooth.cutoff - STEP), pair_at(smooth.cutoff + STEP))
    assert energy < 1e-9 and forces < 1e-6


def test_two_neighbours_change_places_at_the_cap():
    def third_at(distance):
        return Atoms("NOF", [(0, 0, 0), (1.3, 0, 0), (0, distance, 0)])

    found = {k: jump(p, third_at(1.3 - STEP), third_at(1.3 + STEP)) for k, p in potentials(cap=1).items()}
    assert found["published"][0] > 1e-3 and found["smooth"][0] < 1e-8


def test_forces_are_the_gradient():
    """Central differences, with a neighbour in the fading shell."""
    potential = potentials()["smooth"]
    at = 0.97 * potential.cutoff
    energies = []
    for distance in (at - 1e-5, at + 1e-5):
        atoms = Atoms("OH2Na", [(0, 0, 0), (0.76, -0.59, 0), (-0.76, -0.59, 0), (0, distance, 0)])
        systems = Systems.from_atoms(atoms)
        energies.append(potential(systems, neighbors(systems, potential.cutoff), head="omol25").energy.item())
    atoms.positions[3, 1] = at
    systems = Systems.from_atoms(atoms)
    force = potential(systems, neighbors(systems, potential.cutoff), head="omol25").forces[3, 1].item()
    assert (energies[0] - energies[1]) / 2e-5 == pytest.approx(force, abs=1e-7)


def test_weights_equal_the_published_ones_but_at_the_end_of_the_cutoff():
    random = torch.Generator().manual_seed(0)
    score, factor = torch.randn(2, 6, 9, 4, dtype=torch.float64, generator=random)
    mask = torch.ones(6, 9, dtype=torch.bool)
    near = torch.rand(6, 9, dtype=torch.float64, generator=random) * (1 - ONSET) + ONSET
    weights = {k: attention_weights(score, factor, near, mask, k) for k in ("softmax", KIND)}
    torch.testing.assert_close(weights[KIND], weights["softmax"], rtol=1e-14, atol=0)
    far = near.clone()
    far[:, 0] = 1e-4
    lead = score.clone()
    lead[:, 0] += 9  # the largest score, about to leave
    there, gone = (
        attention_weights(lead, factor, step, mask, KIND) for step in (far, far.index_fill(1, torch.tensor(0), 0))
    )
    assert (there - gone)[:, 1:].abs().max() > 0 and gone.isfinite().all() and (gone[:, 0] == 0).all()
    other = attention_weights(lead, factor, far, mask, "softmax")
    assert (other - there).abs().max() > 1e-3  # here the two differ, and must


def test_derivatives_where_the_envelope_ends():
    step = torch.tensor([0.0, 1e-30, 1e-12, 1e-3, ONSET, 0.5], dtype=torch.float64, requires_grad=True)
    held, ratio = fade(step)
    assert held[0] == -torch.inf and held[1:].isfinite().all() and (held[4:] == 0).all()
    assert (ratio[1:].diff() > 0).all() and ratio[0] == 0  # the weight vanishes with the envelope
    (gradient,) = torch.autograd.grad(held[1:].sum() + ratio.sum(), step)
    assert gradient.isfinite().all()


def test_second_derivatives():
    """As training on forces needs them, with neighbours in the fading shell and one that is out."""
    random = torch.Generator().manual_seed(1)
    score, factor = torch.randn(2, 3, 5, 2, dtype=torch.float64, generator=random).requires_grad_().unbind(0)
    step = torch.tensor([[0.9, 0.5, 0.006, 0.002, 0.3]] * 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4 + [False]] * 3)

    def weights(score, factor, step):
        return attention_weights(score, factor, step, mask, KIND)

    assert torch.autograd.gradgradcheck(weights, (score, factor, step), eps=1e-7, atol=1e-3)


def test_changes_are_told():
    published = potentials()["published"].model.config
    told = " ".join(changes(published))
    assert "nearest 32" in told and "softmax" in told and "lattice images" in told and "long range" not in told
    nothing = replace(published, weights="softplus", max_neighbors=None, long_max_neighbors=None, image_limit=None)
    assert changes(nothing) == [] and smoothed(nothing) == nothing
