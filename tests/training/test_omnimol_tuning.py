"""The two ways from OmniLearned weights to molecules: what is copied, what learns, what stays."""

import pytest
import torch

from omnicalc.models import build_model
from omnicalc.models.omnimol import PET
from omnicalc.models.omnimol.pet import PETConfig
from omnicalc.training.lora import merge_low_rank, trainable
from omnicalc.training.omnimol_tuning import full_start, low_rank_start

SMALL = {"width": 16, "layers": 2, "local_layers": 1, "head_layers": 1, "attention_heads": 2}


@pytest.fixture
def start():
    torch.manual_seed(0)
    pet = PET(PETConfig(4, base_dim=16, num_transformers=2, num_transformers_head=1, num_heads=2, mode="pretrain"))
    model = build_model("omnimol", {"heads": ["a"], "preset": "paper", "forces": "direct", "adapter": True, **SMALL})
    return model, pet.state_dict()


def test_full(start):
    model, tensors = start
    report = full_start(model, tensors)
    assert "body.in_blocks.1.attn.in_proj_weight" in report.matched
    assert torch.equal(model.body.in_blocks[1].attn.in_proj_weight, tensors["body.in_blocks.1.attn.in_proj_weight"])
    assert trainable(model) == sum(p.numel() for p in model.parameters())


def test_low_rank(start):
    model, tensors = start
    names = set(model.state_dict())
    report = low_rank_start(model, tensors, rank=3)
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n in frozen if n.startswith(("body.in_blocks.", "body.norm.", "body.token"))}
    assert {n for n in learns if n.startswith("body.in_blocks.")} == {n for n in learns if "parametrizations" in n}
    assert any(n.startswith("body.local_physics.in_blocks.0.attn") for n in learns)
    assert any(n.startswith("body.adapter.") for n in learns) and any(n.startswith("force_head.") for n in learns)
    merged = merge_low_rank(model).state_dict()
    assert set(merged) == names
    assert all(torch.equal(merged[n], tensors[n]) for n in report.matched)  # nothing has been learned yet


def test_the_papers_rank_is_warned_of(start):
    with pytest.warns(UserWarning, match="rank 96 gives updates with more parameters"):
        low_rank_start(*start)
