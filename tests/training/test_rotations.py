"""Random orientations: proper and uniform, and a batch that is turned wholly."""

import numpy as np
import pytest
import torch

from omnicalc.errors import InputError
from omnicalc.training.losses import energy_term, force_term
from omnicalc.training.objectives import StepInfo, build_objective
from omnicalc.training.predict import Prediction, predict
from omnicalc.training.recipe import Stage
from omnicalc.training.rotations import random_rotations, rotated
from tests.omnimol_equations import molecule_losses
from tests.training.toy import two_sizes


def test_proper_and_uniform():
    turns = random_rotations(4000, torch.Generator().manual_seed(0))
    one = torch.eye(3, dtype=torch.float64)
    assert (turns @ turns.transpose(1, 2) - one).abs().max() < 1e-12
    assert (torch.linalg.det(turns) - 1).abs().max() < 1e-12
    z = turns[:, :, 2]  # where the z axis goes: all over the sphere
    assert z.mean(0).abs().max() < 0.05 and (z.square().mean(0) - 1 / 3).abs().max() < 0.02
    angle = torch.arccos(((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    assert angle.mean().item() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.03)  # of the Haar measure


@pytest.fixture
def batch(tmp_path):
    return two_sizes(tmp_path)


def test_an_invariant_model_sees_no_difference(batch):
    """Errors are the same in any orientation; labels left behind are noticed."""
    from dataclasses import replace

    work, given, _ = batch
    model, turned = work.model.double(), rotated(given, random_rotations(2, torch.Generator().manual_seed(1)))
    assert not torch.allclose(turned.systems.positions, given.systems.positions)

    def errors(b):
        found = predict(model, b)
        return torch.cat([found.energy - b.energy, (found.forces - b.forces).norm(dim=1)])

    assert torch.allclose(errors(turned), errors(given), atol=1e-9)
    assert not torch.allclose(errors(replace(turned, forces=given.forces)), errors(given), atol=1e-3)


def test_the_objective_turns_every_step(batch):
    work, given, totals = batch

    def loss(rotate, seed):
        objective = build_objective({"loss": "mae", "rotate": rotate})
        info = StepInfo(Stage(steps=1), 1.0, totals, torch.Generator().manual_seed(seed))
        seen = []
        work.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].vectors.detach()))
        objective.loss(work.model, given, info)
        return seen[0]

    assert torch.equal(loss(False, 1), loss(False, 2))
    assert torch.equal(loss(True, 1), loss(True, 1)) and not torch.equal(loss(True, 1), loss(True, 2))
    with pytest.raises(InputError, match="rotate = 1 in .objective.: true or false"):
        build_objective({"rotate": 1})


def test_the_papers_loss_by_the_trainer(batch):
    """OMNIMOL eq. 12 on standardised labels equals "total-mae" per structure with weights 1/sigma and 10/sigma_F."""
    _, given, totals = batch
    sigma, sigma_f = 0.3, 1.7
    off = torch.linspace(-1, 1, 27).view(9, 3)
    found = Prediction(given.energy + torch.tensor([0.2, -0.5]), given.forces + off, None)
    paper = molecule_losses(
        found.energy / sigma, given.energy / sigma, found.forces / sigma_f, given.forces / sigma_f, given.systems.system
    ).mean()
    energy = energy_term("total-mae", found, given, totals, 1) / sigma
    force = force_term("total-mae", found, given, totals, 1, per_structure=True) * 10 / sigma_f
    assert (energy + force).item() == pytest.approx(paper.item(), rel=1e-12)
    by_atoms = force_term("total-mae", found, given, totals, 1) * 10 / sigma_f  # a wrong variant
    assert (energy + by_atoms).item() != pytest.approx(paper.item())
