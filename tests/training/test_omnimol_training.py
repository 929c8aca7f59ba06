"""OMNIMOL through the trainer: it learns, what it writes loads, and the shipped recipes can be built."""

import numpy as np
import pytest

from omnicalc import OmniCalc
from omnicalc.models import build_model
from omnicalc.training.recipe import RECIPES, read_recipe
from tests.training.toy import RECIPE, write_frames

MODEL = {"gradient": 'size = "tiny"\nwidth = 16\nattention_heads = 2\nlayers = 1', "direct": 'forces = "direct"'}


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_it_learns_and_what_it_writes_loads(tmp_path, forces):
    from ase.io import read

    from omnicalc.files import sha256_of
    from omnicalc.training.trainer import Trainer

    write_frames(tmp_path, 24)
    head = RECIPE.split("[model]")[0].replace('"e2former"', '"omnimol"')
    tail = "[optimiser]" + RECIPE.split("[optimiser]")[1]
    model = MODEL["gradient"] + ("" if forces == "gradient" else "\n" + MODEL["direct"])
    objective = '[objective]\nloss = "total-mae"\nper_structure = true\n'
    text = (head + f"[model]\n{model}\n" + objective + tail).format(
        steps=60, every=60, sha=sha256_of(tmp_path / "frames.extxyz"), optimiser="betas = [0.95, 0.99]",
        batch="[batch]\nstructures = 20", stage='schedule = "onecycle"', data="",
    )  # fmt: skip
    (tmp_path / "recipe.toml").write_text(text)
    trainer = Trainer(read_recipe(tmp_path / "recipe.toml"), tmp_path, tmp_path / "run", report=lambda line: None)
    trainer.prepare(resume=False)
    trainer.run()
    rows = [row.split(",") for row in (tmp_path / "run" / "log.csv").read_text().split()]
    at = rows[0].index("force_mae")
    last = float(rows[-1][at])
    assert last < 0.8 * abs(np.concatenate([a.get_forces() for a in read(tmp_path / "frames.extxyz", ":")])).mean()
    frame = read(tmp_path / "frames.extxyz", "0")
    labels = frame.get_forces()
    frame.calc = OmniCalc(tmp_path / "run" / "best")
    assert abs(frame.get_forces() - labels).mean() < 3 * last
    assert frame.calc.potential.conservative == (forces == "gradient")


@pytest.mark.parametrize("name", ["omnimol-organics", "omnimol-direct-organics"])
def test_shipped_recipes(name):
    recipe = read_recipe(RECIPES / f"{name}.toml")
    model = build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)})
    assert model.conservative == (recipe.name == "omnimol")
    assert recipe.optimiser.betas == (0.95, 0.99) and recipe.stages[0].schedule == "onecycle"
    assert recipe.objective.get("rotate", False) != model.conservative  # only what depends on orientation is turned
