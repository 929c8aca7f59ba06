"""``decoder.toml``: what the weights of a decoder are for, how they were made, and how large their errors are.

Beside ``model.safetensors`` in a weights folder, in place of a potential's ``card.toml``: a decoder has no energy, so
it has no heads and no reference energies, and its accuracy is an error that grows with time. Read strictly.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnicalc.card import DTYPES, NAME_PART, TABLE, TEXT, TEXTS, WEIGHTS, number, read_table, read_toml
from omnicalc.errors import WeightsError
from omnicalc.files import write_atomically
from omnicalc.toml_writer import to_toml


@dataclass(frozen=True)
class DecoderCard:
    """All of ``decoder.toml``."""

    name: str
    tag: str
    version: str
    family: str
    summary: str
    elements: tuple[str, ...]  # symbols
    horizon_fs: float  # largest time of the training
    level_of_theory: str
    dtype: str
    sha256: str  # of model.safetensors
    licence: str
    citation: tuple[str, ...]
    config: Mapping[str, Any]  # architecture, passed to the model as it is
    training: Mapping[str, Any]
    accuracy: Mapping[str, Any]  # "horizons_fs", and under the same order "rmse_A" on molecules not trained on

    @property
    def full_name(self) -> str:
        return f"{self.name}:{self.tag}@{self.version}"

    def trained_on(self, molecule: str) -> float:
        """Part of a molecule's frames, from the first on, that the weights were trained on; 0 for one not seen."""
        recipe = json.loads(self.training.get("recipe", "{}"))
        return recipe.get("train_part", 1.0) if molecule in recipe.get("molecules", ()) else 0.0

    def error_growth(self) -> str:
        """Measured errors in words, empty when there are none."""
        pairs = zip(self.accuracy.get("horizons_fs", []), self.accuracy.get("rmse_A", []), strict=True)
        return ", ".join(f"{error:.2f} Å at {time:g} fs" for time, error in pairs)


def read_decoder_card(path: Path) -> DecoderCard:
    """Raises :class:`WeightsError` naming the file and the key that is wrong."""
    return _card(read_toml(path), str(path))


def write_decoder_card(path: Path, card: DecoderCard) -> None:
    """Wholly or not at all; what could not be read again is not written."""
    text = to_toml(asdict(card))
    _card(tomllib.loads(text), str(path))
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _card(table: dict, where: str) -> DecoderCard:
    from ase.data import atomic_numbers

    card = DecoderCard(**read_table(table, _TYPES, where))
    wrong = [k for k in ("name", "tag", "version") if not NAME_PART.fullmatch(getattr(card, k))]
    wrong += ["dtype"] * (card.dtype not in DTYPES) + ["horizon_fs"] * (not card.horizon_fs > 0)
    wrong += ["sha256"] * (not re.fullmatch("[0-9a-f]{64}", card.sha256))
    wrong += ["elements"] * (not card.elements or any(atomic_numbers.get(s, 0) < 1 for s in card.elements))
    if len(card.accuracy.get("horizons_fs", [])) != len(card.accuracy.get("rmse_A", [])):
        wrong.append("accuracy")
    if wrong:
        raise WeightsError(f"{where}: {wrong[0]} = {getattr(card, wrong[0])!r} cannot be used (beside {WEIGHTS})")
    return card


_TYPES = {
    **dict.fromkeys(("name", "tag", "version", "family", "summary"), TEXT),
    "elements": TEXTS,
    "horizon_fs": ("a number in fs", number),
    **dict.fromkeys(("level_of_theory", "dtype", "sha256", "licence"), TEXT),
    "citation": TEXTS,
    **dict.fromkeys(("config", "training", "accuracy"), TABLE),
}
