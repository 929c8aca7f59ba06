"""OmniLearned weights as the start of an OMNIMOL network: what matches by name and shape, and the report."""

import numpy as np
import pytest
import torch

from omnicalc.errors import WeightsError
from omnicalc.models import build_model
from omnicalc.models.omnimol import PET, read_checkpoint, transfer
from tests.pet_sizes import pet_size


@pytest.fixture(scope="module")
def pet():
    torch.manual_seed(0)
    return PET(pet_size("small"))


@pytest.fixture(scope="module")
def checkpoint(pet, tmp_path_factory):
    """A file in the form of the release, with averages and what else is in there."""
    file = tmp_path_factory.mktemp("pet") / "best_model_pretrain_s.pt"
    parts = {"body": pet.body, "classifier_head": pet.classifier, "generator_head": pet.generator}
    states = {name: part.state_dict() for name, part in parts.items()}
    states["ema_body"] = {k: v + 1 for k, v in states["body"].items()}
    torch.save({**states, "ema_generator": {}, "epoch": 3, "loss": 0.5, "optimizer": {"state": {}}}, file)
    return file


def fresh(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_model("omnimol", {"heads": ["a"], "preset": "paper", "forces": "direct", **settings})


def test_what_matches(pet, checkpoint):
    model = fresh(input_norm=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = transfer(model, read_checkpoint(checkpoint, averaged=False))
    after, theirs = model.state_dict(), pet.state_dict()
    for name in report.matched:
        assert torch.equal(after[name], theirs[name])
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    matched = set(report.matched)
    assert "body.token" in matched and "body.norm.weight" in matched
    for block in [f"body.in_blocks.{l}" for l in range(8)] + [f"body.local_physics.in_blocks.{l}" for l in range(2)]:
        mine = {k for k in after if k.startswith(f"{block}.")}
        assert len(mine) == 12 and mine <= matched
    for part in ("embed", "local_physics", "interaction"):
        assert {f"body.{part}.mlp.fc1.bias", f"body.{part}.mlp.fc2.weight", f"body.{part}.mlp.fc2.bias"} <= matched
        assert f"body.{part}.mlp.fc1.weight" not in matched
    assert "body.add_embed.0.fc2.weight" in matched and "body.embed.mlp.norm.weight" in matched
    said = " ".join(report.skipped)
    for part in ("body.embed.mlp.fc1.weight (256, 4): the model's has shape (256, 3)",
                 "body.local_physics.mlp.fc1.weight (256, 7): the model's has shape (256, 41)",
                 "body.interaction.mlp.fc1.weight (256, 3): the model's has shape (256, 41)",
                 "body.add_embed.0.fc1.weight (256, 4): the model's has shape (256, 2)",
                 "body.pid_embed.0.weight (9, 128): the model's has shape (119, 128)",
                 "body.time_embed.fc1.weight (256, 128): the model has no such tensor",
                 "generator.out.weight (4, 128): heads start fresh"):  # fmt: skip
        assert part in said
    assert set(report.matched).isdisjoint(report.fresh) and set(report.fresh) | matched == set(after)
    assert all(name in str(report) for name in (*report.matched, *report.fresh))
    assert any(name.startswith("energy_head.") for name in report.fresh)


def test_what_is_no_tensor_of_finite_numbers_is_skipped(pet):
    model, token = fresh(), pet.body.token
    odd = {"body.embed.mlp.fc1.bias": "text", "body.embed.mlp.fc2.bias": torch.full((128,), torch.nan)}
    report = transfer(model, {"body.token": token, **odd})
    assert report.matched == ("body.token",)
    assert report.skipped[0] == "body.embed.mlp.fc1.bias (): no tensor of floating-point numbers"
    assert report.skipped[1] == "body.embed.mlp.fc2.bias (128,): values that are not finite"


def test_averages_are_preferred(pet, checkpoint):
    tensors = read_checkpoint(checkpoint)
    assert torch.equal(tensors["body.token"], pet.body.token + 1)
    assert torch.equal(tensors["generator.out.weight"], pet.generator.out.weight)  # no average of it in the file


def test_refused(tmp_path, checkpoint):
    with pytest.raises(WeightsError, match="no such file; the release has https"):
        read_checkpoint(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "text.pt")
    torch.save({"body": {"a": torch.zeros(1)}, "loss": np.float64(1.0)}, tmp_path / "loss.pt")
    with pytest.raises(WeightsError, match=r"holds more than tensors and plain values \(numpy.*could run code$"):
        read_checkpoint(tmp_path / "loss.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="holds no part 'body'"):
        read_checkpoint(tmp_path / "other.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(WeightsError, match="text.safetensors cannot be read as a safetensors file"):
        read_checkpoint(tmp_path / "text.safetensors")
    for body, message in (
        (3, "'body' is of type int; a state dict of tensors is needed"),
        ({"a": "text"}, "'body' has entries that are no tensors: a"),
        ({"a": torch.tensor([torch.nan])}, "values that are not finite: a"),
    ):
        torch.save({"body": body}, tmp_path / "odd.pt")
        with pytest.raises(WeightsError, match=message):
            read_checkpoint(tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match="none of these tensors fits"):
        transfer(fresh(size="tiny"), {"body.pid_embed.0.weight": torch.zeros(9, 128)})
