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
from omnicalc.training.denoising import Denoised, NoiseSettings, denoise_pairs, denoise_systems
from omnicalc.training.example import Batch
from omnicalc.training.pockets import LIGAND_SHIFT, MIXED_SHIFT, RESIDUES, pocket_systems, random_generator
from omnicalc.training.weight_decay import decays_in_scd

_VALIDATION_SEED = 0  # of the noise on validation structures: the same at every validation


@dataclass(frozen=True)
class PretrainingSettings(NoiseSettings):
    """``[objective]`` of a recipe."""

    pockets: str = "none"  # of protein-ligand complexes: denoise the ligand on its "pocket", the pocket on its
    # "ligand", or "mixed": neighbourhoods of the ligand and of residues, each on itself
    residues: int = RESIDUES  # in a pocket or neighbourhood
    shift: float | None = None  # Å, scale of the displacement of its centre; by default as in the release


class SelfConditionedDenoising:
    """loss = mean square of predicted against normalised noise, over all components of a step."""

    Settings = PretrainingSettings
    terms = ("denoising",)
    error_names = ("denoising_mse", "denoising_mae")
    needs_labels = False

    def __init__(self, settings: PretrainingSettings):
        self.settings = s = settings
        if s.widest_noise is not None and s.widest_noise <= s.corrupt_noise:
            raise InputError(
                f"widest_noise = {s.widest_noise!r} in [objective]: a length above corrupt_noise, "
                f"{s.corrupt_noise:g} Å, is needed"
            )
        if s.pockets in ("pocket", "ligand") and not s.self_conditioned:
            raise InputError(f'pockets = "{s.pockets}" in [objective] needs self_conditioned = true')

    @staticmethod
    def decays(name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a parameter: the list of the SCD release; of other backbones, matrices."""
        return adam.decays(name, parameter) if name.startswith(PREFIX) else decays_in_scd(name)

    def check(self, model: nn.Module) -> None:
        """Freeze what pretraining leaves alone. Raises InputError for a model without the heads that this needs."""
        if not hasattr(model, "frozen_in_pretraining"):
            raise InputError(
                'objective "self-conditioned-denoising" needs family = "scd", or family = "denoiser" with backbone = '
                '"e2former" or "allscaip" and its [model.settings]'
            )
        for parameter in model.frozen_in_pretraining():
            parameter.requires_grad_(False)

    def check_example(self, example, where: str) -> None:
        """Refuse a structure that the settings cannot be used on."""
        if self.settings.pockets != "none" and example.residue is None:
            raise InputError(
                f"{where} has no per-atom column residue (a number for each, -1 in the ligand), which pockets = "
                f'"{self.settings.pockets}" in [objective] needs; omnicalc data split writes it of LBA complexes'
            )

    def _denoised(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Denoised:
        s, systems = self.settings, batch.systems
        if s.pockets == "none":
            return denoise_systems(model, systems, s, generator)
        shift = s.shift if s.shift is not None else MIXED_SHIFT if s.pockets == "mixed" else LIGAND_SHIFT
        rng = random_generator(generator)
        condition, denoised = pocket_systems(systems, batch.residue, s.pockets, s.residues, shift, rng)
        if s.pockets == "mixed":
            return denoise_systems(model, denoised, s, generator)
        return denoise_pairs(model, condition, denoised, s, generator)

    def loss(self, model: nn.Module, batch: Batch, step) -> tuple[Tensor, dict[str, Tensor]]:
        found = self._denoised(model, batch, step.generator)
        loss = found.loss * (batch.systems.n_atoms / step.totals.atoms)
        return loss, {"denoising": loss}

    def errors(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums over the components of each structure (S,), of normalised noise, and their number."""
        with torch.no_grad():
            generator = torch.Generator().manual_seed(_VALIDATION_SEED)
            found = self._denoised(model, batch, generator)
        count = 3.0 * torch.bincount(found.system, minlength=batch.systems.n_systems).double()
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
