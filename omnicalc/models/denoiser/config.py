"""Settings of a denoiser: a backbone's own, and those of its condition and pooled embedding."""

from dataclasses import dataclass, field

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import check_known, made, plain
from omnicalc.models.scd.config import POOLS

BACKBONES = ("e2former", "allscaip")


@dataclass(frozen=True)
class DenoiserConfig:
    backbone: str  # family
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
        if self.embedding_pool not in POOLS:
            raise WeightsError(f"embedding_pool = {self.embedding_pool!r} given; choose one of: {', '.join(POOLS)}")
        if not 0 <= self.condition_dropout < 1:
            raise WeightsError(f"condition_dropout = {self.condition_dropout} given; a probability below 1 is needed")

    @classmethod
    def from_dict(cls, table: dict) -> "DenoiserConfig":
        """Strict: a key that is not a setting is an error that names it."""
        check_known("denoiser", cls, table)
        if "backbone" not in table:
            raise WeightsError(f"backbone is missing; choose one of: {', '.join(BACKBONES)}")
        return made(cls, table)

    def to_dict(self) -> dict:
        """Plain types for a card, settings that are None left out."""
        return plain(self)
