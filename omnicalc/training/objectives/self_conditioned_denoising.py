"""Self-conditioned denoising, and plain coordinate denoising beside it: pretraining on geometries alone.

Works with the family ``scd``, and with ``denoiser`` for E2Former-V2 and AllScAIP. Element tables, mask token and scalar
heads are left as they are. Labels are not looked at.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.models.denoiser.model import PREFIX
from omnicalc.training import adam
from omnicalc.training.denoising import Denoised, NoiseSettings, denoise_systems
from omnicalc.training.example import Batch
from omnicalc.training.weight_decay import decays

_VALIDATION_SEED = 0  # of the noise on validation structures: the same at every validation


@dataclass(frozen=True)
class Settings(NoiseSettings):
    """``[objective]`` of a recipe."""


class SelfConditionedDenoising:
    """loss = mean square of predicted against normalised noise, over all components of a step."""

    Settings = Settings
    terms = ("denoising",)
    error_names = ("denoising_mse", "denoising_mae")
    needs_labels = False

    def __init__(self, settings: Settings):
        self.settings = settings

    @staticmethod
    def decays(name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a parameter: the list of the SCD release; of other backbones, matrices."""
        return adam.decays(name, parameter) if name.startswith(PREFIX) else decays(name)

    def check(self, model: nn.Module) -> None:
        """Freeze what pretraining leaves alone. Raises InputError for a model without the heads that this needs."""
        if not hasattr(model, "frozen_in_pretraining"):
            raise InputError(
                'objective "self-conditioned-denoising" needs family = "scd", or family = "denoiser" with backbone = '
                '"e2former" or "allscaip" and its [model.settings]'
            )
        for parameter in model.frozen_in_pretraining():
            parameter.requires_grad_(False)

    def loss(self, model: nn.Module, batch: Batch, step) -> tuple[Tensor, dict[str, Tensor]]:
        found = denoise_systems(model, batch.systems, self.settings, step.generator)
        loss = found.loss * (batch.systems.n_atoms / step.totals.atoms)
        return loss, {"denoising": loss}

    def errors(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums over the components of each structure (S,), of normalised noise, and their number."""
        with torch.no_grad():
            generator = torch.Generator().manual_seed(_VALIDATION_SEED)
            found = denoise_systems(model, batch.systems, self.settings, generator)
        count = 3.0 * batch.systems.counts.double()
        error = found.prediction - found.target
        return {
            "denoising_mse": (_by_structure(found, error.square()), count),
            "denoising_mae": (_by_structure(found, error.abs()), count),
        }

    def score(self, errors: dict[str, float]) -> float:
        return errors["denoising_rmse"]


def _by_structure(found: Denoised, error: Tensor) -> Tensor:
    n = int(found.system[-1]) + 1
    return torch.zeros(n, dtype=torch.float64, device=error.device).index_add_(0, found.system, error.double().sum(-1))
