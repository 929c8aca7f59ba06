"""Energies, forces and stress, by gradients or directly, as the model does it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnicalc.training.example import Batch
from omnicalc.training.losses import energy_term, force_term, stress_term
from omnicalc.training.predict import predict
from omnicalc.training.rotations import random_rotations, rotated


@dataclass(frozen=True)
class EnergyForcesSettings:
    """``[objective]`` of a recipe; weights of the terms stand in its stages."""

    loss: str = "atoml2mae"
    huber_delta: float = 0.01  # eV per atom, and eV/Å
    per_structure: bool = False  # force errors averaged within each structure first
    rotate: bool = False  # every structure in a random orientation: for models that are not rotation-invariant


class EnergyForces:
    """loss = w_F force term + w_E energy term + w_S stress term (:mod:`omnicalc.training.losses`)."""

    Settings = EnergyForcesSettings
    terms = ("force", "energy", "stress")
    error_names = ("force_mae", "force_mse", "energy_mae", "stress_mae")

    def __init__(self, settings: EnergyForcesSettings):
        self.settings = settings

    def check(self, model: nn.Module) -> None:
        """Raise InputError for a model whose energies are refused, once it is trained."""
        if hasattr(model, "check_gives_energies"):
            model.check_gives_energies()

    def loss(self, model: nn.Module, batch: Batch, step) -> tuple[Tensor, dict[str, Tensor]]:
        kind, delta, totals, stage = self.settings.loss, self.settings.huber_delta, step.totals, step.stage
        forces = totals.force_atoms > 0 and stage.force_weight > 0
        stress = stage.stress_weight > 0 and batch.has_stress
        if self.settings.rotate:
            batch = rotated(batch, random_rotations(batch.systems.n_systems, step.generator))
        found = predict(model, batch, forces=forces, stress=stress, create_graph=True)
        energy = energy_term(kind, found, batch, totals, delta)
        loss, terms = step.energy_weight * energy, {"energy": energy}
        if forces:
            terms["force"] = force_term(kind, found, batch, totals, delta, self.settings.per_structure)
            loss = loss + stage.force_weight * terms["force"]
        if stress:
            terms["stress"] = stress_term(kind, found, batch, totals, delta)
            loss = loss + stage.stress_weight * terms["stress"]
        return loss, terms

    def errors(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums and counts for each structure (S,): |dE|/N (eV), |dF| over components (eV/Å) and its square, |dS| over
        the six components (eV/Å^3).
        """
        stress = batch.has_stress and model.conservative  # others have none that fits their forces
        found = predict(model, batch, stress=stress)
        system, n = batch.systems.system, batch.systems.counts
        energy = (found.energy - batch.energy).abs() / n * batch.energy_weight
        error = (found.forces - batch.forces) * batch.force_weight[:, None]
        with_forces = torch.zeros_like(energy).index_add_(0, system, 3 * batch.force_weight)
        size = torch.zeros_like(energy).index_add_(0, system, error.abs().sum(-1))
        square = torch.zeros_like(energy).index_add_(0, system, error.square().sum(-1))
        apart = stressed = torch.zeros_like(energy)
        if stress:
            stressed = 6 * batch.stress_weight
            difference = torch.where(stressed > 0, (found.stress - batch.stress).abs().permute(1, 2, 0), 0.0)
            apart = difference[torch.triu_indices(3, 3).unbind()].sum(0)
        return {
            "force_mae": (size, with_forces),
            "force_mse": (square, with_forces),
            "energy_mae": (energy, batch.energy_weight),
            "stress_mae": (apart, stressed),
        }

    def score(self, errors: dict[str, float]) -> float:
        """What the best checkpoint has least of: the force error, or the energy error where there are no forces."""
        return errors["energy_mae"] if math.isnan(errors["force_mae"]) else errors["force_mae"]
