"""ATOM (arXiv:2510.05482): a decoder of several future frames of a molecule at once."""

from omnicalc.models.atom.config import AtomConfig
from omnicalc.models.atom.model import Atom
from omnicalc.models.atom.published import from_published

__all__ = ["Atom", "AtomConfig", "from_published"]
