"""What a model is trained for. One file each; a recipe names it in ``[objective]``.

An objective is a class with

* ``Settings``: a frozen dataclass of its keys in ``[objective]``, whose ranges stand in
  :mod:`omnicalc.training.recipe_checks`; ``__init__(settings)`` raises :class:`InputError` for those that do not fit
  together;
* ``terms``: names of the loss terms it logs, each a mean over the step;
* ``loss(model, batch, step) -> (Tensor (), {term: Tensor ()})``: the part that one pack adds to the loss of the step.
  Means are over the whole step (``step.totals``), so that the parts of all packs, and of all processes, add up;
* ``errors(model, batch) -> {name: (sums (S,), counts (S,))}``: what validation adds up, under ``error_names``; a name
  that ends in _mse is reported as its root. ``score({name: mean})``: lower is better;
* ``check(model)``: raise :class:`InputError` for a model it cannot train, and freeze what it does not train;
* optional ``begin(model)``: what weights that it begins with know of another objective, and is to be forgotten;
* optional ``decays(name, parameter)``: whether weight decay acts on a parameter;
* optional ``needs_labels = False``: it learns from structures alone.
"""

from dataclasses import dataclass
from importlib import import_module

import torch

from omnicalc.errors import InputError
from omnicalc.training.example import Totals
from omnicalc.training.recipe import Stage, strict

_ROOM = "omnicalc.training.objectives."
_OBJECTIVES = {
    "energy-forces": _ROOM + "energy_forces:EnergyForces",
    "energy-forces-denoising": _ROOM + "energy_forces_denoising:EnergyForcesDenoising",
    "force-denoising": _ROOM + "force_denoising:ForceDenoising",
    "property": _ROOM + "scalar_property:ScalarProperty",
    "self-conditioned-denoising": _ROOM + "self_conditioned_denoising:SelfConditionedDenoising",
}


@dataclass(frozen=True)
class StepInfo:
    """Where a loss is asked for."""

    stage: Stage
    energy_weight: float
    totals: Totals
    generator: torch.Generator  # for objectives that draw noise; its seed follows from run, step and pack
    step: int = 0  # of the whole run


def needs_labels(table: dict) -> bool:
    """Whether the objective of a recipe's ``[objective]`` table learns from energies or forces."""
    return getattr(_kind(table.get("name", "energy-forces")), "needs_labels", True)


def build_objective(table: dict):
    """The objective of a recipe's ``[objective]`` table. Raises InputError for an unknown one, unknown keys, or a value
    that cannot be.
    """
    settings = dict(table)
    name = settings.pop("name", "energy-forces")
    objective = _kind(name)
    return objective(strict(objective.Settings, settings, "[objective]"))


def _kind(name: object) -> type:
    if not isinstance(name, str) or name not in _OBJECTIVES:
        raise InputError(f"unknown objective {name!r}; known: {', '.join(_OBJECTIVES)}")
    module, kind = _OBJECTIVES[name].split(":")
    return getattr(import_module(module), kind)
