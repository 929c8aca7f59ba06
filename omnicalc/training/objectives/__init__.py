"""What a model is trained for. One file each; a recipe names it in ``[objective]``.

An objective is a class with

* ``Settings``: a frozen dataclass of its keys in ``[objective]``;
* ``terms``: names of the loss terms it logs, each a mean over the step;
* ``loss(model, batch, step) -> (Tensor (), {term: Tensor ()})``: the part that one pack adds to the loss of the step.
  Means are over the whole step (``step.totals``), so that the parts of all packs, and of all processes, add up;
* ``errors(model, batch) -> {name: (sums (S,), counts (S,))}``: what validation adds up, under ``error_names``; a name
  that ends in _mse is reported as its root. ``score({name: mean})``: lower is better;
* ``check(model)``: raise :class:`InputError` for a model it cannot train.
"""

from dataclasses import dataclass, fields
from importlib import import_module

import torch

from omnicalc.errors import InputError
from omnicalc.training.example import Totals
from omnicalc.training.recipe import Stage

_OBJECTIVES = {"energy-forces": "omnicalc.training.objectives.energy_forces:EnergyForces"}


@dataclass(frozen=True)
class StepInfo:
    """Where a loss is asked for."""

    stage: Stage
    energy_weight: float
    totals: Totals
    generator: torch.Generator  # for objectives that draw noise; its seed follows from run, step and pack


def build_objective(table: dict):
    """The objective of a recipe's ``[objective]`` table. Raises InputError for an unknown one or unknown keys."""
    settings = dict(table)
    name = settings.pop("name", "energy-forces")
    if name not in _OBJECTIVES:
        raise InputError(f"unknown objective '{name}'; known: {', '.join(_OBJECTIVES)}")
    module, kind = _OBJECTIVES[name].split(":")
    objective = getattr(import_module(module), kind)
    known = [f.name for f in fields(objective.Settings)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"unknown keys in [objective]: {', '.join(unknown)}; known: name, {', '.join(known)}")
    return objective(objective.Settings(**settings))
