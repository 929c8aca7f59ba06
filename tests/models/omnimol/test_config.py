"""Presets, sizes and their counts, and settings that cannot be."""

import pytest
import torch

from omnicalc.errors import WeightsError
from omnicalc.models import build_model
from omnicalc.models.omnimol import PET, OmnimolConfig, preset
from tests.pet_sizes import pet_size


def count(model) -> float:
    """Millions of parameters."""
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize(
    "size, whole, parts",
    [
        ("small", 3.34, (1.494, 1.423, 0.423)),
        ("medium", 59.9, (32.08, 21.42, 6.41)),
        ("large", 423.0, (279.3, 101.6, 42.2)),
    ],
)
def test_pet_counts(size, whole, parts):
    """Counted in the release's code, with pair bias, 9 kinds of particles, 4 extra features and 210 classes."""
    with torch.device("meta"):
        model = PET(pet_size(size))
    assert count(model) == pytest.approx(whole, rel=2e-3)
    found = [count(part) for part in (model.body, model.classifier, model.generator)]
    assert found == pytest.approx(parts, rel=2e-3)


@pytest.mark.parametrize("size, millions", [("tiny", 0.1514), ("S", 2.186), ("M", 42.72)])
@pytest.mark.parametrize("name", ["paper", "smooth"])
def test_counts(name, size, millions):
    """The paper's tables say 2.2 M and 43.3 M for the direct variants (see config: 0.6 M cannot be told)."""
    with torch.device("meta"):
        direct = build_model("omnimol", {"heads": ["a"], "preset": name, "size": size, "forces": "direct"})
        invariant = build_model("omnimol", {"heads": ["a"], "preset": name, "size": size})
    assert count(direct) == pytest.approx(millions, rel=1e-3)
    assert count(invariant) < count(direct)  # no position encoder, no force head
    config = direct.config
    assert (config.n_pair_features, invariant.config.n_pair_features) == (41, 38)


def test_presets_differ_as_they_should():
    paper, smooth = (OmnimolConfig(("a",), **preset(name)) for name in ("paper", "smooth"))
    assert (paper.neighbors, paper.k, paper.soft_core, paper.angles) == ("nearest", 15, 0.0, "row")
    assert (smooth.neighbors, smooth.cutoff, smooth.soft_core, smooth.angles) == ("cutoff", 6.0, 0.5, "bias")
    assert not paper.positions and preset("paper", forces="direct")["positions"]
    assert paper.n_local_features == 38 + 15
    flat = OmnimolConfig(("a",), **preset("paper") | {"angles": "flat"})
    assert flat.n_local_features == 38 + 105


def test_a_card_holds_every_setting():
    config = OmnimolConfig.from_dict({"heads": ["a", "b"], "preset": "paper", "size": "tiny", "repulsion": "zbl"})
    table = config.to_dict()
    assert "preset" not in table and table["heads"] == ["a", "b"]
    assert OmnimolConfig.from_dict(table) == config


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"depth": 3}, "unknown omnimol settings: depth"),
        ({"preset": "rough"}, "preset 'rough' given; choose one of: paper, smooth"),
        ({"size": "L"}, "size 'L' given"),
        ({"forces": "both"}, "forces = 'both' is not supported"),
        ({"width": 50, "attention_heads": 8}, "must be a multiple"),
        ({"angles": "row"}, "needs ranked neighbours"),
        ({"forces": "direct", "positions": False}, "needs positions = true"),
        ({"input_norm": True}, "needs positions = true"),
        ({"cutoff": -1.0}, "a number above 0"),
        ({"layers": 0}, "a whole number of at least 1"),
        ({"rotations": 5}, "choose one of: 1, 4, 12, 24"),
        ({"adapter": "yes"}, "true or false"),
        ({"rotations": 24.0}, "rotations = 24.0 given; a whole number"),
        ({"rotations": True}, "rotations = True given; a whole number"),
        ({"heads": []}, "at least one is needed, each with a name of its own"),
        ({"heads": "abc"}, "heads = 'abc' given; at least one"),
        ({"heads": ["a", "a"]}, "each with a name of its own"),
        ({"energy_shift": "x"}, "energy_shift = 'x' given; a finite number"),
        ({"energy_shift": float("nan")}, "energy_shift = nan given; a finite number"),
        ({"mlp_drop": 1.5}, "mlp_drop = 1.5 given; a probability below 1"),
        ({"sigma_min": 11.0}, "sigma_min = 11.0 given; at most sigma_max = 10.0"),
        ({"cutoff": float("inf")}, "cutoff = inf given; a number above 0"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(WeightsError, match=message):
        OmnimolConfig.from_dict({"heads": ["a"], **settings})
    with pytest.raises(WeightsError, match="lack heads"):
        OmnimolConfig.from_dict({"size": "S"})
