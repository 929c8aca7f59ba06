"""Fine-tuning of a pretrained SCD network: energies and forces on the structures, denoising of slightly noisy copies.

One pass without a condition for energies and forces, another for the noise, as in the release's MD17 protocol. Drop
path falls from its first to its last value over the warm-up and 2000 steps more.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.models.scd.transformer import drop_path
from omnicalc.training.example import Batch
from omnicalc.training.objectives.energy_forces import EnergyForces, EnergyForcesSettings
from omnicalc.training.objectives.with_denoising import WithDenoising


@dataclass(frozen=True)
class EnergyForcesDenoisingSettings(EnergyForcesSettings):
    """``[objective]`` of a recipe."""

    noise: float = 0.005  # Å
    denoising_weight: float = 0.1
    first_drop_path: float = 0.15
    last_drop_path: float = 0.0


class EnergyForcesDenoising(WithDenoising, EnergyForces):
    """loss = that of energies and forces + w_d mean square of predicted against normalised noise."""

    Settings = EnergyForcesDenoisingSettings
    terms = (*EnergyForces.terms, "denoising")

    def __init__(self, settings: EnergyForcesDenoisingSettings):
        super().__init__(settings)
        if settings.denoising_weight and not settings.noise:
            raise InputError("noise = 0 in [objective] leaves nothing to denoise; set denoising_weight = 0 as well")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        if not (hasattr(model, "noise_head") and hasattr(model, "node_features")):
            raise InputError('objective "energy-forces-denoising" needs a network that denoises: family = "scd"')

    def loss(self, model: nn.Module, batch: Batch, step) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        path = drop_path_at(step.step, first=s.first_drop_path, last=s.last_drop_path, warmup=step.stage.warmup)
        drop_path(model, path)
        loss, terms = super().loss(model, batch, step)
        return self.with_denoising(loss, terms, model, batch, step)


def drop_path_at(step: int, *, first: float, last: float, warmup: int) -> float:
    """Drop-path probability: linear from ``first`` to ``last`` over the warm-up and 2000 steps more, then ``last``."""
    done = min(1.0, step / (warmup + 2000))
    return first + (last - first) * done
