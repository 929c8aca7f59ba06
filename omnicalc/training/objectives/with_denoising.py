"""Plain coordinate denoising beside another objective, as the SCD release fine-tunes."""

from torch import Tensor, nn

from omnicalc.training.denoising import NoiseSettings, denoise_systems
from omnicalc.training.example import Batch
from omnicalc.training.weight_decay import decays_in_scd


class WithDenoising:
    """Of an objective whose ``settings`` have ``noise`` (Å) and ``denoising_weight``, and whose terms "denoising"."""

    @staticmethod
    def decays(name: str, parameter: Tensor) -> bool:
        return decays_in_scd(name)

    def begin(self, model: nn.Module) -> None:
        """The normaliser of a pretraining would make this noise, of another size, next to nothing."""
        if self.settings.denoising_weight:
            model.noise_normalizer.forget()

    def with_denoising(self, loss: Tensor, terms: dict[str, Tensor], model: nn.Module, batch: Batch, step):
        """``loss`` and ``terms`` of the other objective, and the denoising of structures with cells as they are."""
        if self.settings.denoising_weight:
            noise = NoiseSettings(corrupt_noise=self.settings.noise, self_conditioned=False, tile_cells=False)
            denoised = denoise_systems(model, batch.systems, noise, step.generator)
            terms["denoising"] = denoised.loss * (batch.systems.n_atoms / step.totals.atoms)
            loss = loss + self.settings.denoising_weight * terms["denoising"]
        return loss, terms
