"""OmniCalc: an ASE calculator and molecular-dynamics toolkit for machine-learned interatomic potentials.

Names below load on first use, so that ``import omnicalc`` stays fast and never loads torch by itself.
"""

from importlib import import_module

__version__ = "0.1.0"

_LAZY = {
    "OmniCalc": "omnicalc.calculator",
    "E2FormerCalculator": "omnicalc.calculator",
    "AllScAIPCalculator": "omnicalc.calculator",
    "SCDCalculator": "omnicalc.calculator",
    "OmnimolCalculator": "omnicalc.calculator",
    "embed": "omnicalc.embedding",
    "denoise": "omnicalc.embedding",
    "properties": "omnicalc.embedding",
    "load_potential": "omnicalc.registry",
    "list_models": "omnicalc.registry",
    "ParallelDecoder": "omnicalc.decoding.decoder",
}

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'omnicalc' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
