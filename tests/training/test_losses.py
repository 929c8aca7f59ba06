"""Loss terms against numbers worked out by hand, and the parameter gradient against finite differences."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from omnicalc.errors import InputError
from omnicalc.training.example import collate
from omnicalc.training.losses import energy_term, force_term, stress_term
from omnicalc.training.objectives import StepInfo, build_objective
from omnicalc.training.predict import Prediction, predict
from omnicalc.training.recipe import Stage
from tests.training.toy import two_sizes


@pytest.fixture
def batch_of(tmp_path):
    return two_sizes(tmp_path)


def off_by(batch, energy, force):
    """A prediction whose energies are off by ``energy`` (2,) and every force component by ``force``."""
    return Prediction(batch.energy + torch.tensor(energy), batch.forces + force, None)


def test_terms_by_hand(batch_of):
    _, batch, totals = batch_of
    assert (totals.structures, totals.atoms, totals.energies, totals.force_atoms) == (2, 9, 2, 9)
    found = off_by(batch, [0.03, -0.12], 0.2)
    length = 0.2 * 3**0.5
    expected = {
        "atoml2mae": ((0.01 + 0.02) / 2, length),
        "l2mae": ((0.03 + 0.12) / 2, 9 * length / 2),
        "mae": ((0.01 + 0.02) / 2, 0.2),
        "total-mae": ((0.03 + 0.12) / 2, 0.2),
        "mse": ((0.01**2 + 0.02**2) / 2, 0.04),
        "huber": ((0.5 * 0.01**2 + 0.015 * (0.02 - 0.0075)) / 2, 0.015 * (0.2 - 0.0075)),
    }
    for kind, (energy, force) in expected.items():
        assert energy_term(kind, found, batch, totals, 0.015).item() == pytest.approx(energy), kind
        assert force_term(kind, found, batch, totals, 0.015).item() == pytest.approx(force), kind


def test_per_structure_means_count_small_and_large_alike(batch_of):
    _, batch, totals = batch_of
    found = off_by(batch, [0.0, 0.0], 0.0)
    found.forces[:3, 0] += 0.9  # the small one only
    assert force_term("atoml2mae", found, batch, totals, 1).item() == pytest.approx(0.9 * 3 / 9, abs=1e-5)
    assert force_term("atoml2mae", found, batch, totals, 1, True).item() == pytest.approx(0.9 / 2, abs=1e-5)


def test_what_has_no_label_counts_for_nothing(batch_of):
    _, batch, totals = batch_of
    silent = replace(batch, energy_weight=torch.tensor([1.0, 0.0]), force_weight=batch.force_weight * 0)
    fewer = replace(totals, energies=1, force_atoms=0, force_structures=0)
    found = off_by(batch, [0.03, 99.0], 99.0)
    assert energy_term("atoml2mae", found, silent, fewer, 1).item() == pytest.approx(0.01)
    assert force_term("atoml2mae", found, silent, fewer, 1).item() == 0


def test_stress_counts_where_it_is_known(batch_of):
    _, batch, totals = batch_of
    batch = replace(batch, stress_weight=torch.tensor([1.0, 0.0]))
    stress = torch.full((2, 3, 3), float("nan"), dtype=torch.float64)
    stress[0] = 0.02
    found = Prediction(batch.energy, batch.forces, stress.requires_grad_())
    term = stress_term("mae", found, batch, replace(totals, stresses=1), 1)
    assert term.item() == pytest.approx(0.02)
    (gradient,) = torch.autograd.grad(term, stress)
    assert gradient[1].abs().max() == 0  # not NaN: the structure without a volume stays out of it


def test_boxes_with_stresses_beside_molecules(batch_of):
    """Gradients stay finite, and validation counts the six components of the box alone."""
    trainer, batch, totals = batch_of
    model = trainer.model
    cell = torch.stack([6.0 * torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)])
    label = torch.zeros(2, 3, 3, dtype=torch.float64)
    label[0, 1, 2] = label[0, 2, 1] = 0.3
    weight = torch.tensor([1.0, 0.0], dtype=torch.float64)
    batch = replace(batch, systems=replace(batch.systems, cell=cell), stress=label, stress_weight=weight)
    objective = build_objective({"name": "energy-forces"})
    step = StepInfo(Stage(steps=10, stress_weight=1.0), 1.0, replace(totals, stresses=1), torch.Generator())
    loss, _ = objective.loss(model, batch, step)
    found = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
    assert all(g.isfinite().all() for g in found if g is not None)
    error = (predict(model, batch, stress=True).stress - label)[0].abs()
    total, count = objective.errors(model, batch)["stress_mae"]
    assert count.tolist() == [6, 0] and total[1] == 0 and error[1, 2] > 0.2
    assert total[0].item() == pytest.approx((error.sum() + error.trace()).item() / 2)


@pytest.mark.parametrize("loss", ["atoml2mae", "huber"])
def test_parameter_gradient_equals_finite_differences(batch_of, loss):
    """The gradient of a force loss needs second derivatives; in float64."""
    work, batch, totals = batch_of
    model = work.model.double()
    objective = build_objective({"name": "energy-forces", "loss": loss, "huber_delta": 0.3})
    info = StepInfo(Stage(steps=1), 3.0, totals, None)
    parameters = list(model.parameters())
    total, _ = objective.loss(model, batch, info)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    rng = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]

    def moved(size):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += size * d
        return objective.loss(model, batch, info)[0].item()

    slope = (moved(1e-5) - moved(-2e-5)) / 2e-5
    predicted = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert predicted == pytest.approx(slope, rel=1e-5)
    assert abs(1.01 * predicted - slope) > 1e-5 * abs(slope)


def test_a_batch_is_its_structures(batch_of):
    """Forces and energies of a batch are those of its parts, and padding changes nothing."""
    work, batch, _ = batch_of
    model, sources = work.model.double(), work.dataset.sources[0]
    entries = [next(e for e in sources.train if e.n_atoms == n) for n in (3, 6)]
    together = predict(model, batch)
    forces = []
    for k, entry in enumerate(entries):
        alone = predict(model, collate([work.dataset.example(0, entry)], work.dataset.cutoff))
        assert together.energy[k].item() == pytest.approx(alone.energy.item(), abs=1e-10)
        forces.append(alone.forces)
    assert torch.allclose(together.forces, torch.cat(forces), atol=1e-10)
    assert not torch.allclose(together.forces[:3], forces[1][:3], atol=1e-3)


def test_unknown_objectives_and_keys():
    with pytest.raises(InputError, match="unknown objective 'forces'"):
        build_objective({"name": "forces"})
    with pytest.raises(InputError, match="unknown keys in .objective.: losss"):
        build_objective({"losss": "mae"})
    with pytest.raises(InputError, match="loss = 'mean'"):
        build_objective({"loss": "mean"})
    with pytest.raises(InputError, match="unknown objective .'mse'."):
        build_objective({"name": ["mse"]})
    assert np.isfinite(build_objective({}).settings.huber_delta)


_NAN, _INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "name, settings",
    [
        ("energy-forces", {"huber_delta": _INF}),
        ("energy-forces", {"huber_delta": True}),
        ("energy-forces", {"per_structure": 1}),
        ("energy-forces-denoising", {"huber_delta": 0}),  # a range that is inherited
        ("energy-forces-denoising", {"noise": _NAN}),
        ("energy-forces-denoising", {"noise": 0}),
        ("energy-forces-denoising", {"first_drop_path": 1.0}),
        ("force-denoising", {"noise": _INF}),
        ("property", {"scale": _NAN}),
        ("property", {"loss": "huber"}),
        ("self-conditioned-denoising", {"clean_noise": _NAN}),
        ("self-conditioned-denoising", {"widest_noise": "wide"}),
    ],
)
def test_settings_that_cannot_be(name, settings):
    key, value = next(iter(settings.items()))
    with pytest.raises(InputError, match=re.escape(f"{key} = {value!r} in [objective]")):
        build_objective({"name": name, **settings})
    build_objective({"name": name})
