"""Denoising as an objective: what it asks for, by hand and through the trainer."""

import pytest
import torch

from omnicalc.errors import InputError
from omnicalc.models.graph import ModelOutput
from omnicalc.training.objectives import StepInfo, build_objective
from omnicalc.training.recipe import Stage
from tests.training.toy import two_sizes, write_frames


class Springs(torch.nn.Module):
    """Direct forces that pull every atom back to where it was: F = -(r - r0) / sigma, the answer, times ``factor``."""

    cutoff, conservative, uses_positions = 3.0, False, True

    def __init__(self, at, sigma, factor=1.0):
        super().__init__()
        self.at, self.sigma = at, sigma
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, graph):
        forces = -self.factor * (graph.positions - self.at) / self.sigma
        return ModelOutput(0 * forces.sum(1), forces)


@pytest.fixture
def batch(tmp_path):
    return two_sizes(tmp_path)[1:]


def info(totals, seed=0):
    return StepInfo(Stage(steps=1), 1.0, totals, torch.Generator().manual_seed(seed))


def test_springs_to_the_clean_structure_are_the_answer(batch):
    given, totals = batch
    systems = given.systems
    means = torch.stack([systems.positions[systems.system == s].mean(0) for s in range(2)])
    clean = systems.positions - means[systems.system]
    objective = build_objective({"name": "force-denoising", "noise": 0.1})
    right, _ = objective.loss(Springs(clean, 0.1), given, info(totals))
    assert right.item() < 1e-20
    silent, terms = objective.loss(Springs(clean, 0.1, 0.0), given, info(totals))
    assert 0.2 < silent.item() < 2.0 and terms["noise"] == silent  # that of the noise itself, less its mean
    sums, counts = objective.errors(Springs(clean, 0.1), given)["noise_mse"]
    assert sums.abs().max() < 1e-20 and counts.tolist() == [9, 18]
    again = [objective.errors(Springs(clean, 0.1, 0.0), given)["noise_mse"][0] for _ in range(2)]
    assert torch.equal(*again) and again[0].min() > 0


def test_noise_is_new_at_every_step(batch):
    given, totals = batch
    objective = build_objective({"name": "force-denoising"})
    model = Springs(torch.zeros(9, 3, dtype=torch.float64), 1.0)
    losses = [objective.loss(model, given, info(totals, seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("noise", [0, -1, "much", True, float("inf")])
def test_refused(noise):
    with pytest.raises(InputError, match="noise = .* in .objective.: a (length above 0 Å|number) is needed"):
        build_objective({"name": "force-denoising", "noise": noise})


def test_through_the_trainer(tmp_path):
    """It runs, keeps the best weights, and another run begins with them."""
    write_frames(tmp_path)
    from dataclasses import replace

    from omnicalc.training.trainer import Trainer
    from tests.training.toy import recipe_in

    recipe = replace(recipe_in(tmp_path, steps=4, every=2), objective={"name": "force-denoising", "rotate": True})
    work = Trainer(recipe, tmp_path, tmp_path / "run", report=lambda line: None)
    work.prepare(resume=False)
    work.run()
    assert "noise_rmse" in (tmp_path / "run" / "log.csv").read_text().split()[0]
    after = replace(recipe_in(tmp_path, steps=4, every=2), start=str(tmp_path / "run" / "best"))
    assert "tensors copied" in Trainer(after, tmp_path, tmp_path / "next", report=lambda line: None).start_report
