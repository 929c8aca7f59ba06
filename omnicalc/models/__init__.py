"""Model families. Each folder holds one family: config, layers, model, import of published tensors."""

from importlib import import_module

from omnicalc.errors import WeightsError

_FAMILIES = {
    "allscaip": "omnicalc.models.allscaip",
    "denoiser": "omnicalc.models.denoiser",
    "e2former": "omnicalc.models.e2former",
    "omnimol": "omnicalc.models.omnimol",
    "scd": "omnicalc.models.scd",
}


def build_model(family: str, config: dict):
    """An untrained model of ``family`` from the ``[config]`` table of its card.

    Raises:
        WeightsError: unknown family, or a config key that the family does not know.
    """
    if family not in _FAMILIES:
        raise WeightsError(f"unknown model family '{family}'; this version knows: {', '.join(_FAMILIES)}")
    return import_module(_FAMILIES[family]).build(config)
