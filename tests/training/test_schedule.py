"""Learning rates and energy weights."""

from dataclasses import replace

import pytest

from omnicalc.errors import InputError
from omnicalc.training.recipe import Stage
from omnicalc.training.schedule import energy_weight, learning_rate
from tests.training.toy import recipe_in, write_frames


def test_cosine():
    stage = Stage(steps=1000, warmup=100)
    assert learning_rate(stage, 0) == pytest.approx(3e-3 / 100, rel=1e-3)
    assert learning_rate(stage, 999) == pytest.approx(3e-5, rel=0.01)
    assert (energy_weight(stage, 699), energy_weight(stage, 700)) == (5.0, 40.0)


def test_onecycle_rises_and_falls_once():
    stage = Stage(steps=1000, warmup=300, schedule="onecycle")
    rates = [learning_rate(stage, k) for k in range(1000)]
    top = rates.index(max(rates))
    assert 299 <= top <= 300 and max(rates) == pytest.approx(3e-3)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] == pytest.approx(0.04 * 3e-3, rel=0.01) and rates[-1] == pytest.approx(3e-5, rel=0.01)


def test_constant():
    stage = Stage(steps=100, warmup=10, schedule="constant")
    assert learning_rate(stage, 4) == pytest.approx(1.5e-3)
    assert learning_rate(stage, 10) == learning_rate(stage, 99) == 3e-3


def test_stages_follow_each_other(folder):
    recipe = replace(recipe_in(folder), stages=(Stage(steps=10), Stage(steps=5, learning_rate=1e-4)))
    assert recipe.steps == 15
    assert [recipe.stage_at(k)[1] for k in (0, 9, 10, 14, 15)] == [0, 9, 0, 4, 5]
    assert recipe.stage_at(9)[0] is recipe.stages[0] and recipe.stage_at(10)[0] is recipe.stages[1]


def test_a_cosine_shorter_than_its_stage_is_refused(tmp_path):
    """The rate would rise again after its end."""
    write_frames(tmp_path, 4)
    recipe_in(tmp_path, steps=20, stage="decay_steps = 20")
    with pytest.raises(InputError, match="decay_steps = 19 in .* is less than steps = 20"):
        recipe_in(tmp_path, steps=20, stage="decay_steps = 19")
