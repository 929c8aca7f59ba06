"""Settings of a denoiser: a backbone's own, and those of its condition and pooled embedding."""

from dataclasses import dataclass, field

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import ConfigTable, check_known, made
from omnicalc.models.scd.config import POOLS

BACKBONES = ("e2former", "allscaip")


@dataclass(frozen=True)
class DenoiserConfig(ConfigTable):
    """A backbone, and what a denoiser has beside it."""

    family = "denoiser"
    backbone: str  # its family
    settings: dict = field(default_factory=dict)  # of the backbone, as in its own cards, but for heads
    heads: tuple[str, ...] = ("energy",)  # of the backbone; not trained by denoising
    condition_dropout: float = 0.2
    embedding_pool: str = "mean"

    def __post_init__(self):
        if self.backbone not in BACKBONES:
            raise WeightsError(
                f"backbone = {self.backbone!r} given; choose one of: {', '.join(BACKBONES)} (family scd has the heads "
                "of its own)"
            )
        self._check_choices(embedding_pool=POOLS)
        self._check_probabilities("condition_dropout")

    @classmethod
    def from_dict(cls, table: dict) -> "DenoiserConfig":
        """Strict: a key that is not a setting is an error that names it."""
        check_known(cls.family, cls, table)
        if "backbone" not in table:
            raise WeightsError(f"backbone is missing; choose one of: {', '.join(BACKBONES)}")
        return made(cls, table)
