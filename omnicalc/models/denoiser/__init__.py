"""Any backbone with the heads of self-conditioned denoising: what E2Former-V2 and AllScAIP are pretrained as."""

from omnicalc.models.denoiser.config import DenoiserConfig
from omnicalc.models.denoiser.model import Denoiser

__all__ = ["Denoiser", "DenoiserConfig", "build"]


def build(config: dict) -> Denoiser:
    """An untrained network from the ``[config]`` table of a card."""
    return Denoiser(DenoiserConfig.from_dict(config))
