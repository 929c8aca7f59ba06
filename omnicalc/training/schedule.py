"""Learning rate and energy weight at a step of a stage."""

import math

from omnicalc.training.recipe import Stage

_ONECYCLE_START = 0.04  # of the highest rate


def learning_rate(stage: Stage, step: int) -> float:
    """Rate at ``step`` of a stage.

    ``cosine``: linear warm-up times a half cosine down to ``final_rate``, whose clock starts at step 0. ``onecycle``:
    half a cosine up to the highest rate over the warm-up, then one down to ``final_rate`` (Smith and Topin,
    arXiv:1708.07120). ``constant``: linear warm-up, then the rate as it is.
    """
    if stage.schedule == "onecycle":
        return stage.learning_rate * _onecycle(stage, step)
    warm = min(1.0, (step + 1) / stage.warmup)
    if stage.schedule == "constant":
        return stage.learning_rate * warm
    cosine = 0.5 * (1 + math.cos(math.pi * step / (stage.decay_steps or stage.steps)))
    return stage.learning_rate * warm * (stage.final_rate + (1 - stage.final_rate) * cosine)


def _onecycle(stage: Stage, step: int) -> float:
    if step < stage.warmup:
        rise = 0.5 * (1 - math.cos(math.pi * (step + 1) / stage.warmup))
        return _ONECYCLE_START + (1 - _ONECYCLE_START) * rise
    length = max(1, (stage.decay_steps or stage.steps) - stage.warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - stage.warmup) / length)))
    return stage.final_rate + (1 - stage.final_rate) * fall


def energy_weight(stage: Stage, step: int) -> float:
    late = step >= (1 - stage.late_fraction) * stage.steps
    return stage.energy_weight_late if late else stage.energy_weight
