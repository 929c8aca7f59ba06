"""One number per structure, in the place of the energy: a property, or a label that gives no forces.

With ``denoising_weight`` a second pass takes noise off copies of the structures, as in the SCD release's fine-tuning.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.training.example import Batch
from omnicalc.training.objectives.with_denoising import WithDenoising
from omnicalc.training.predict import predict


@dataclass(frozen=True)
class PropertySettings:
    """``[objective]`` of a recipe."""

    loss: str = "mse"  # or "mae"
    scale: float = 1.0  # of the property, in its unit: errors are divided by it (its spread makes it a z-score)
    noise: float = 0.005  # Å
    denoising_weight: float = 0.0


class ScalarProperty(WithDenoising):
    """loss = mean over structures of the square (or size) of dy / scale [+ w_d denoising]."""

    Settings = PropertySettings
    terms = ("property", "denoising")
    error_names = ("property_mae", "property_mse")

    def __init__(self, settings: PropertySettings):
        self.settings = settings

    def check(self, model: nn.Module) -> None:
        """Raise InputError for a model whose numbers would be taken for energies, or that cannot denoise."""
        if getattr(model.config, "gives", None) != "properties":
            raise InputError(
                'objective "property" needs family = "scd" and gives = "properties" in [model]: the numbers of other '
                "weights are taken for energies"
            )
        if self.settings.denoising_weight and not hasattr(model, "node_features"):
            raise InputError('denoising_weight in [objective] needs a network that denoises: family = "scd"')

    def loss(self, model: nn.Module, batch: Batch, step) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        error = (predict(model, batch, forces=False, create_graph=True).energy - batch.energy) / s.scale
        size = error.square() if s.loss == "mse" else error.abs()
        loss = (size * batch.energy_weight).sum() / max(1, step.totals.energies)
        terms = {"property": loss}
        return self.with_denoising(loss, terms, model, batch, step)

    def errors(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """In the unit of the property; sums and counts for each structure (S,)."""
        with torch.no_grad():
            error = (predict(model, batch, forces=False).energy - batch.energy) * batch.energy_weight
        return {
            "property_mae": (error.abs(), batch.energy_weight),
            "property_mse": (error.square(), batch.energy_weight),
        }

    def score(self, errors: dict[str, float]) -> float:
        return errors["property_mae"]
