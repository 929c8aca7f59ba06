"""Coordinate denoising as pretraining of a potential: its forces point back from displaced to labelled positions.

Every atom is displaced by sigma e, e normal and without a mean over each structure, and the forces (in units of eV/Å)
are trained towards -e: by a force head, or as the gradient of an energy, whichever the model has (Zaidi et al.,
arXiv:2206.00133). Labels are not looked at.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from omnicalc.neighbors import neighbors
from omnicalc.training.example import Batch
from omnicalc.training.predict import predict
from omnicalc.training.rotations import random_rotations, rotated


@dataclass(frozen=True)
class ForceDenoisingSettings:
    """``[objective]`` of a recipe."""

    noise: float = 0.05  # sigma, Å
    rotate: bool = False  # every structure in a random orientation: for models that are not rotation-invariant


class ForceDenoising:
    """loss = w_F times the mean square of F + e over all components of the step."""

    Settings = ForceDenoisingSettings
    needs_labels = False
    terms = ("noise",)
    error_names = ("noise_mse",)

    def __init__(self, settings: ForceDenoisingSettings):
        self.settings = settings

    def check(self, model: nn.Module) -> None:
        pass

    def loss(self, model: nn.Module, batch: Batch, step) -> tuple[Tensor, dict[str, Tensor]]:
        if self.settings.rotate:
            batch = rotated(batch, random_rotations(batch.systems.n_systems, step.generator))
        miss = self._miss(model, batch, step.generator, create_graph=True)
        term = miss.square().sum() / (3 * step.totals.atoms)
        return step.stage.force_weight * term, {"noise": term}

    def errors(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums of (F + e)^2 over components and their number, (S,); the same noise every time."""
        miss = self._miss(model, batch, torch.Generator().manual_seed(0), create_graph=False)
        sums = torch.zeros_like(batch.energy).index_add_(0, batch.systems.system, miss.square().sum(1))
        return {"noise_mse": (sums, 3.0 * batch.systems.counts)}

    def score(self, errors: dict[str, float]) -> float:
        return errors["noise_rmse"]

    def _miss(self, model: nn.Module, batch: Batch, generator, create_graph: bool) -> Tensor:
        """F + e (N, 3) of structures displaced by sigma e."""
        systems = batch.systems
        noise = torch.randn(systems.positions.shape, dtype=torch.float64, generator=generator).to(systems.device)
        sums = torch.zeros(systems.n_systems, 3, dtype=torch.float64, device=noise.device)
        means = sums.index_add_(0, systems.system, noise) / systems.counts.unsqueeze(1)
        noise = noise - means[systems.system]
        moved = systems.with_positions(systems.positions + self.settings.noise * noise)
        batch = replace(batch, systems=moved, neighbors=neighbors(moved, batch.neighbors.cutoff))
        return predict(model, batch, create_graph=create_graph).forces + noise
