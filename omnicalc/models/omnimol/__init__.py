"""OMNIMOL: the point-edge transformer of OmniLearned (PET v2) on molecules; spec and choices in ``config``."""

from omnicalc.models.omnimol.config import OmnimolConfig, preset
from omnicalc.models.omnimol.model import Omnimol
from omnicalc.models.omnimol.pet import PET, PETConfig
from omnicalc.models.omnimol.published import from_published, read_checkpoint, transfer

__all__ = [
    "PET",
    "Omnimol",
    "OmnimolConfig",
    "PETConfig",
    "build",
    "from_published",
    "preset",
    "read_checkpoint",
    "transfer",
]


def build(config: dict) -> Omnimol:
    """An untrained network from the ``[config]`` table of a card, or of a recipe (with ``preset`` and ``size``)."""
    return Omnimol(OmnimolConfig.from_dict(config))
