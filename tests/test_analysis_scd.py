"""The pretraining study: splits by molecule, means over seeds, recipes that can be built."""

import numpy as np
import pytest
from ase import Atoms

from analysis.scd.study import BEGINNINGS, draw, splits, summary
from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.training.objectives import build_objective
from omnicalc.training.recipe import RECIPES, read_recipe


def test_no_molecule_is_in_two_parts():
    frames = [Atoms("H", info={"molecule": f"m{k % 40}"}) for k in range(200)]
    parts = splits(frames, labelled=30)
    names = {key: {a.info["molecule"] for a in part} for key, part in parts.items()}
    for one, other in (("pool", "valid"), ("pool", "test"), ("valid", "test")):
        assert not names[one] & names[other]
    assert names["few"] <= names["pool"] and len(parts["few"]) == 30
    assert len(parts["pool"]) + len(parts["valid"]) + len(parts["test"]) == 200
    with pytest.raises(InputError, match="ten different"):
        splits(frames[:3], labelled=2)


def test_summary_and_figure(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"seed": seed, "beginning": kind, "target": target, "error": error + 0.01 * rng.normal()}
        for seed in range(3)
        for kind, error in zip(BEGINNINGS, (1.0, 0.9, 0.8, 0.7), strict=True)
        for target in ("gap", "forces")
    ]
    table = summary(rows)
    scd = next(r for r in table if (r["target"], r["beginning"]) == ("gap", "scd"))
    errors = [r["error"] for r in rows if (r["target"], r["beginning"]) == ("gap", "scd")]
    assert scd["mae"] == pytest.approx(np.mean(errors)) and scd["seeds"] == 3
    assert scd["stderr"] == pytest.approx(np.std(errors, ddof=1) / 3**0.5)
    assert scd["gain_percent"] == pytest.approx(20, abs=3)
    draw(tmp_path / "x.png", table)
    assert (tmp_path / "x.png").stat().st_size > 5000


@pytest.mark.parametrize("name, gives", [("scd-pretrained", "embeddings"), ("scd-organics", "energies")])
def test_shipped_recipes(name, gives):
    recipe = read_recipe(RECIPES / f"{name}.toml")
    model = build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)})
    assert model.config.gives == gives and model.conservative
    build_objective(recipe.objective).check(model)
