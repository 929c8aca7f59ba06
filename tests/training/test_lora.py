"""Low-rank updates: nothing changes at first, only they learn, and merged they are plain weights."""

import copy

import pytest
import torch
from torch import nn

from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.training.lora import add_low_rank, merge_low_rank, trainable, unfreeze, useful_rank

BODY = [r"body\.in_blocks\.\d+\.attn\.(in_proj_weight|out_proj\.weight)", r"body\.in_blocks\.\d+\.mlp\.fc[12]\.weight"]
NEW = [r"body\.(embed|pid_embed|add_embed|pair_scalar|local_physics|interaction)\..*", r"(energy|force)_head\..*"]


def small(size="tiny"):
    torch.manual_seed(0)
    return build_model("omnimol", {"heads": ["a"], "size": size, "forces": "direct"})


def run(model):
    from ase.build import molecule

    from omnicalc.neighbors import neighbors
    from omnicalc.potential import Head, Potential
    from omnicalc.systems import Systems

    systems = Systems.from_atoms(molecule("CH3OH"))
    potential = Potential(model, [Head("a", dict.fromkeys((1, 6, 8), 0.0))])
    return potential(systems, neighbors(systems, 1.0), head="a", create_graph=True)


def test_nothing_changes_at_first_and_only_the_updates_learn():
    model = small()
    before, plain = run(model), copy.deepcopy(model.state_dict())
    names = add_low_rank(model, BODY, rank=4)
    assert len(names) == 2 * 4 and all("in_blocks" in n and "local" not in n for n in names)
    after = run(model)
    assert torch.equal(before.energy, after.energy) and torch.equal(before.forces, after.forces)
    d, h = 48, 96
    assert trainable(model) == 2 * (3 * 4 * (d + d) + 4 * (d + d) + 2 * 4 * (d + h))
    (after.energy.sum() + after.forces.square().sum()).backward()
    learns = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert learns == {n for n, p in model.named_parameters() if n.endswith(".0.b")}  # A's slope is zero while B is
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    optimiser.step()
    changed = run(model)
    assert not torch.allclose(changed.forces, before.forces)
    merge_low_rank(model)
    merged = model.state_dict()
    assert merged.keys() == plain.keys() and torch.allclose(run(model).forces, changed.forces, atol=1e-6)
    assert {k for k in plain if not torch.equal(plain[k], merged[k])} == set(names)
    small().load_state_dict(merged, strict=True)


def test_q_k_and_v_have_updates_of_their_own():
    model = small()
    add_low_rank(model, [r"body\.in_blocks\.0\.attn\.in_proj_weight"], rank=2)
    attention = model.body.in_blocks[0].attn
    update = attention.parametrizations.in_proj_weight[0]
    with torch.no_grad():
        update.b[2] = 1.0
    change = attention.in_proj_weight - attention.parametrizations.in_proj_weight.original
    assert (change[:96] == 0).all() and torch.linalg.matrix_rank(change[96:]) == 1


def test_alpha_scales_the_update():
    layer = nn.Sequential(nn.Linear(6, 4))
    add_low_rank(layer, [r"0\.weight"], rank=2, alpha=8)
    update = layer[0].parametrizations.weight[0]
    nn.init.ones_(update.b)
    change = layer[0].weight - layer[0].parametrizations.weight.original
    assert torch.allclose(change, 4 * (update.b[0] @ update.a[0]), atol=1e-6)


def test_a_rank_larger_than_useful_is_told():
    """At d = 128 the paper's rank 96 is larger than the square matrices, and than those of the MLP."""
    model = small("S")
    with pytest.warns(UserWarning, match=r"rank 96 .*in_proj_weight \(useful: up to 64\) and 31 more"):
        add_low_rank(model, BODY, rank=96)
    assert trainable(model) == 8 * 172032  # 1.38 M
    assert useful_rank(torch.empty(128, 128)) == 64
    assert useful_rank(torch.empty(256, 128)) == pytest.approx(85.33, abs=0.01)
    new = unfreeze(model, NEW)
    assert new and trainable(model) > 2.1e6  # more than the 2.19 M that training from scratch has
    assert not any("in_blocks" in n and n.startswith("body.in_blocks") for n in new)


def test_a_useful_rank_is_silent(recwarn):
    add_low_rank(small("S"), BODY, rank=8)
    assert not recwarn.list


def test_it_works_on_other_families():
    torch.manual_seed(0)
    settings = {"heads": ["a"], "elements": [1, 8], "channels": 8, "l_max": 1, "layers": 1, "attention_heads": 2,
                "values": ["first-order"], "n_basis": 4}  # fmt: skip
    model = build_model("e2former", settings)
    assert len(add_low_rank(model, [r"energy_heads\.a\.[02]\.weight"], rank=1)) == 2
    assert all("parametrizations" in n for n, p in model.named_parameters() if p.requires_grad)


def test_refused():
    with pytest.raises(InputError, match="no matrix of the model is named by"):
        add_low_rank(small(), [r"body\.nothing"], rank=4)
    with pytest.raises(InputError, match="alpha 'x' given; a number is needed, or None"):
        add_low_rank(small(), BODY, rank=4, alpha="x")
    with pytest.raises(InputError, match="rank 0 given"):
        add_low_rank(small(), BODY, rank=0)
