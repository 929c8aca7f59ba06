"""E2Former-V2 (arXiv:2601.16622), as in UBio-MolFM (arXiv:2602.17709): attention on atoms and unit edge vectors."""

from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.model import E2Former
from omnicalc.models.e2former.published import from_published

__all__ = ["E2Former", "E2FormerConfig", "build", "from_published"]


def build(config: dict) -> E2Former:
    """An untrained network from the ``[config]`` table of a card."""
    return E2Former(E2FormerConfig.from_dict(config))
