"""One decoder for each molecule against one of many: what is trained on what, and who is said to win."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.atom.single_task import MANY, SINGLE, compared, main, single_recipe, table, trained, verdict
from omnicalc.data.trajectories import Trajectory
from omnicalc.errors import InputError
from omnicalc.training.decoder.batches import Sampler
from omnicalc.training.decoder.recipe import find_decoder_recipe, read_decoder_recipe
from tests.tiny_decoder import TINY, shaking, tiny_network

RECIPE = read_decoder_recipe(find_decoder_recipe("atom-small"))


def long(name: str = "CH4") -> Trajectory:
    return shaking(name, frames=800, segments=2, spacing=2.0)


def test_a_single_task_sees_the_first_part_of_its_molecule_alone():
    recipe = single_recipe(RECIPE, "toluene", 40)
    assert recipe.molecules == ("toluene",) and recipe.steps == 40 and recipe.warmup <= 10
    assert recipe.model == RECIPE.model and recipe.longest == RECIPE.longest
    (starts,) = Sampler([long()], recipe).starts
    last = round(recipe.train_part * len(long().x))
    assert starts.max() + recipe.longest / 2.0 < last <= long().starts(250, (recipe.train_part, 1.0)).min()


def test_both_are_judged_from_the_same_starts(tmp_path):
    """The baselines of a fresh comparison are the same; a network compared with itself draws."""
    model = {k: v for k, v in TINY.to_dict().items() if k != "horizon"}
    recipe = replace(single_recipe(RECIPE, "CH4", 3), model=model, batch=2, save_every=2)
    single = trained(recipe, long(), tmp_path / "CH4")
    again = trained(recipe, long(), tmp_path / "CH4")  # nothing is left to do
    for name, tensor in single.state_dict().items():
        assert (tensor == again.state_dict()[name]).all()
    found = compared(tiny_network(), single, long(), 0.75, starts=4)
    assert all(v.shape == (4,) and np.isfinite(v).all() for v in found.values())
    drawn = compared(single, single, long(), 0.75, starts=4)
    assert (drawn[MANY] == drawn[SINGLE]).all() and (drawn["free rigid body"] == found["free rigid body"]).all()


def test_verdict_counts_molecules_at_each_horizon():
    low, high = np.full(4, 0.01), np.array([0.02, 0.02, 0.005, 0.01])
    found = {"a": {MANY: low, SINGLE: high}, "b": {MANY: high, SINGLE: low}, "c": {MANY: low, SINGLE: high}}
    assert verdict(found) == "multitask below single task on 2 of 3 at 50 fs, 2 of 3 at 100 fs, 1 of 3 at 200 fs, " \
        "0 of 3 at 500 fs"  # fmt: skip
    rows = table(found)
    assert rows[-2] == {"molecule": "mean", "decoder": MANY, "50 fs": 1.333, "100 fs": 1.333, "200 fs": 0.833,
                        "500 fs": 1.0}  # fmt: skip


def test_a_molecule_that_was_trained_on_is_refused(tmp_path):
    with pytest.raises(InputError, match="--molecule benzene: atom:small@0.1 was trained on it; its test"):
        main.main(["atom", "--data", str(tmp_path), "--out", str(tmp_path / "x"), "--molecule", "benzene"],
                  standalone_mode=False)  # fmt: skip
