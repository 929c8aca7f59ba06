"""The optimiser of the trainer with Muon for matrices: its step, which parameters take it, runs that go on."""

import numpy as np
import pytest
import torch

from omnicalc.card import read_card
from omnicalc.errors import InputError
from omnicalc.training.adam import Adam
from omnicalc.training.muon import MOMENTUM, step_of_matrices
from tests.training.toy import recipe_in, trainer, write_frames

MUON = 'matrices = "muon"'


def orthogonal_by_svd(matrix: np.ndarray) -> np.ndarray:
    """Five rounds of the quintic on the singular values, (Jordan et al.), in float64."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ v


def stepped(shapes, dtype):
    rng = torch.Generator().manual_seed(0)
    weights, momenta, gradients = ([torch.randn(s, generator=rng, dtype=dtype) for s in shapes] for _ in range(3))
    before = [(w.clone(), m.clone()) for w, m in zip(weights, momenta, strict=True)]
    step_of_matrices(weights, momenta, gradients, 0.1)
    return before, weights, momenta, gradients


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_every_matrix_of_a_stack_is_orthogonalised_by_itself(dtype, tolerance):
    before, weights, momenta, gradients = stepped([(5, 8), (3, 5, 8), (8, 5), (4, 4), (2, 3, 6, 5)], dtype)
    for (old, momentum), new, later, g in zip(before, weights, momenta, gradients, strict=True):
        m = momentum.double().lerp(g.double(), 1 - MOMENTUM)
        assert torch.allclose(later.double(), m, atol=1e-6)
        update = g.double().lerp(m, MOMENTUM)
        stack = update.reshape(-1, *update.shape[-2:]).numpy()
        wanted = np.stack([orthogonal_by_svd(x) for x in stack]).reshape(update.shape)
        moved = (old - new).double().numpy() / (0.2 * 0.1 * max(update.shape[-2:]) ** 0.5)
        assert np.abs(moved - wanted).max() < tolerance
    # the wrong variant: a stack flattened to one matrix
    flat = orthogonal_by_svd(stack.reshape(stack.shape[0], -1)).reshape(stack.shape)
    assert np.abs(flat - wanted.reshape(flat.shape)).max() > 0.05


def test_tables_vectors_and_single_rows_keep_adam(tmp_path):
    write_frames(tmp_path)
    model = trainer(tmp_path).model
    assert Adam.of(model).matrices == ()
    chosen = Adam.of(model, matrices="muon").matrices
    shapes = {n: p.shape for n, p in model.named_parameters()}
    assert {"radial.second.weight", "blocks.0.attention.value.weight"} <= set(chosen)
    assert not [n for n in chosen if "embedding" in n or "bias" in n or "norm" in n or min(shapes[n][-2:]) == 1]
    left = set(shapes) - set(chosen)
    assert {"type_embedding.weight", "radial.pair_bias", "blocks.0.norm_attention.gamma"} <= left
    odd = [n for n in left if not any(word in n for word in ("embedding", "bias", "norm"))]
    assert all(len(shapes[n]) < 2 or min(shapes[n][-2:]) == 1 for n in odd)


def test_training_with_muon_learns(tmp_path):
    write_frames(tmp_path, 40)
    forces_first = "energy_weight = 0.3\nenergy_weight_late = 3.0"
    work = trainer(tmp_path, steps=240, every=60, stage=forces_first, optimiser=MUON)
    work.prepare(resume=False)
    work.run()
    errors = [float(row["force_mae"]) for row in work.log.read() if row["group"] == "all"]
    assert errors[-1] < 0.4 * errors[0]
    card = read_card(tmp_path / "run" / "best" / "card.toml")
    assert card.training["matrices"] == "muon"  # fine-tuning these weights steps alike


def test_a_resumed_training_with_muon_is_the_same_training(tmp_path):
    write_frames(tmp_path, 40, sizes=(1, 2, 3))
    whole = trainer(tmp_path, "whole", steps=30, optimiser=MUON)
    whole.prepare(resume=False)
    whole.run()
    for steps in (17, None):
        parts = trainer(tmp_path, "parts", steps=30, optimiser=MUON)
        parts.prepare(resume=steps is None)
        parts.run(steps)
    plain = trainer(tmp_path, "plain", steps=30)
    plain.prepare(resume=False)
    plain.run()
    assert all(torch.equal(t, parts.averaged[n]) for n, t in whole.averaged.items())
    assert any(not torch.equal(t, plain.averaged[n]) for n, t in whole.averaged.items())


def test_an_unknown_optimiser_is_refused(tmp_path):
    write_frames(tmp_path)
    with pytest.raises(InputError, match='matrices = \'sgd\' in .*: "adam" or "muon" is needed'):
        recipe_in(tmp_path, optimiser='matrices = "sgd"')
