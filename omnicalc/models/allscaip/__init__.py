"""AllScAIP (arXiv:2603.06567): attention among soft nearest neighbours and among all atoms."""

from omnicalc.models.allscaip.config import PRESETS, AllScAIPConfig
from omnicalc.models.allscaip.model import AllScAIP
from omnicalc.models.allscaip.published import from_published

__all__ = ["PRESETS", "AllScAIP", "AllScAIPConfig", "build", "from_published"]


def build(config: dict) -> AllScAIP:
    """An untrained network from the ``[config]`` table of a card."""
    return AllScAIP(AllScAIPConfig.from_dict(config))
