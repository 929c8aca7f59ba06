"""SCD (arXiv:2603.17196): equivariant transformers pretrained by self-conditioned denoising; also potentials."""

from omnicalc.models.scd.config import SCDConfig
from omnicalc.models.scd.equivariance import EquivarianceError, equivariance_error
from omnicalc.models.scd.model import SCD
from omnicalc.models.scd.published import from_published

__all__ = ["SCD", "EquivarianceError", "SCDConfig", "build", "equivariance_error", "from_published"]


def build(config: dict) -> SCD:
    """An untrained network from the ``[config]`` table of a card."""
    return SCD(SCDConfig.from_dict(config))
