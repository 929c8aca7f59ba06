"""``card.toml``: what a weights folder holds, for whom, from what data, and how good it is.

Read strictly: a key that is missing or that nobody knows is an error, because a misspelt key is a lost fact.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omnicalc.errors import WeightsError
from omnicalc.toml_writer import to_toml

CARD = "card.toml"
DECODER_CARD = "decoder.toml"  # in its place beside the weights of a decoder (omnicalc.decoding.card)
WEIGHTS = "model.safetensors"
DTYPES = ("float32", "float64")
PERIODIC = {  # what a head has seen of periodic structures; an empty text: the card does not say
    "trained": "trained on",
    "untrained": "not trained on: computed, with a warning",
    "refused": "refused: trained on single molecules in vacuum",
}
NAME_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*(-[A-Za-z0-9._]+)*")


@dataclass(frozen=True)
class CardHead:
    """One level of theory."""

    name: str
    level_of_theory: str
    elements: tuple[str, ...]  # symbols
    reference_source: str  # "least squares ..." or "PySCF free atoms ..."
    data: str  # what it was trained on, in words
    reference: Mapping[str, float]  # symbol -> eV, one for every element
    periodic: str = ""  # a key of PERIODIC, or empty, as in cards that do not have it

    @property
    def reference_by_number(self) -> dict[int, float]:
        """Reference energies (eV) by atomic number."""
        from ase.data import atomic_numbers

        return {atomic_numbers[symbol]: energy for symbol, energy in self.reference.items()}

    @property
    def numbers(self) -> frozenset[int]:
        """Atomic numbers that this head knows."""
        return frozenset(self.reference_by_number)


@dataclass(frozen=True)
class Card:
    """All of ``card.toml``; ``heads`` in order of preference."""

    name: str
    tag: str
    version: str
    family: str
    summary: str  # one line: what these weights are for
    conservative: bool  # forces are the gradient of the energy
    cutoff: float  # Å
    dtype: str  # of the tensors in the file
    sha256: str  # of model.safetensors
    licence: str
    citation: tuple[str, ...]
    charges: tuple[int, ...]  # total charges (e) the weights were trained for
    spins: str | tuple[int, ...]  # "ignored", or the multiplicities they were trained for
    config: Mapping[str, Any]  # architecture, passed to the model as it is
    heads: tuple[CardHead, ...]
    training: Mapping[str, Any]  # command, seed, steps, data with repository, commit, path and sha256
    accuracy: Mapping[str, Any]  # measured numbers

    @property
    def full_name(self) -> str:
        """``name:tag@version``, which means one exact file."""
        return f"{self.name}:{self.tag}@{self.version}"

    @property
    def no_potential(self) -> str | None:
        """What weights give that have no energies; None for those that have."""
        gives = self.config.get("gives", "energies")
        if gives == "properties":
            return "properties of structures (omnicalc.properties)"
        if self.family == "denoiser" or gives == "embeddings" or self.config.get("backbone") == "cgt":
            return "pretrained only, embeddings and denoising (omnicalc embed)"
        return None


def read_card(path: Path | str) -> Card:
    """The card in a file. Raises :class:`WeightsError` naming the file and the key that is wrong."""
    return _card(read_toml(Path(path)), str(path))


def read_toml(path: Path) -> dict:
    """The table in a file. Raises :class:`WeightsError` where there is none."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; a weights folder holds {path.name} and {WEIGHTS}") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: not a TOML file ({error})") from None


def write_card(path: Path | str, card: Card) -> None:
    """Write ``card`` to the file ``path``, wholly or not at all; :func:`read_card` returns the same card."""
    from omnicalc.files import write_atomically

    text = to_toml(as_table(card))
    _card(tomllib.loads(text), str(path))  # refuse to write what could not be read
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def as_table(card: Card) -> dict[str, Any]:
    """The card as plain dicts and lists, as in the file."""
    table = {f.name: getattr(card, f.name) for f in fields(Card)}
    table["heads"] = [_head_table(head) for head in card.heads]
    return table


def _head_table(head: CardHead) -> dict[str, Any]:
    table = {f.name: getattr(head, f.name) for f in fields(CardHead)}
    return {key: value for key, value in table.items() if key not in _OPTIONAL or value}


def _card(table: dict, where: str) -> Card:
    table = read_table(table, _CARD_TYPES, where)
    heads = tuple(_head(head, f"{where}: heads[{k}]") for k, head in enumerate(table["heads"]))
    card = Card(**{**table, "heads": heads})
    _check_card(card, where)
    return card


def _head(table: object, where: str) -> CardHead:
    if not isinstance(table, dict):
        raise WeightsError(f"{where}: a table is needed")
    head = CardHead(**read_table(table, _HEAD_TYPES, where))
    from ase.data import atomic_numbers

    unknown = [s for s in (*head.elements, *head.reference) if atomic_numbers.get(s, 0) < 1]
    if unknown:
        wrong = ", ".join(unknown)
        raise WeightsError(f"{where}: unknown element {wrong}; symbols such as H, O or Na are needed")
    if not head.elements or set(head.elements) != set(head.reference):
        raise WeightsError(
            f"{where}: elements are {', '.join(head.elements) or 'missing'} but reference energies are given "
            f"for {', '.join(head.reference) or 'none'}; every element needs one, and nothing else has one"
        )
    return head


def _check_card(card: Card, where: str) -> None:
    names = [head.name for head in card.heads]
    checks = {
        "name": NAME_PART.fullmatch(card.name) is not None,
        "tag": NAME_PART.fullmatch(card.tag) is not None,
        "version": NAME_PART.fullmatch(card.version) is not None,
        "cutoff": card.cutoff > 0,
        "dtype": card.dtype in DTYPES,
        "sha256": re.fullmatch("[0-9a-f]{64}", card.sha256) is not None,
        "charges": len(card.charges) > 0,
        "spins": card.spins == "ignored" or min(card.spins, default=0) >= 1,
        "heads": bool(names) and len(set(names)) == len(names),
    }
    for key, good in checks.items():
        if not good:
            value = names if key == "heads" else getattr(card, key)
            raise WeightsError(f"{where}: {key} = {value!r}: {_NEEDED[key]}")


_NEEDED = {
    "name": "letters, digits, '.', '_' and single '-' are needed",
    "tag": "letters, digits, '.', '_' and single '-' are needed",
    "version": "letters, digits, '.', '_' and single '-' are needed",
    "cutoff": "a length above 0 Å is needed",
    "dtype": f"one of {', '.join(DTYPES)} is needed",
    "sha256": f"the 64 hexadecimal digits of {WEIGHTS} are needed (sha256sum {WEIGHTS})",
    "charges": "at least one total charge is needed",
    "spins": '"ignored" or a list of multiplicities 2S+1 is needed',
    "heads": "at least one head is needed, each with a name of its own",
}


def read_table(table: dict, types: dict[str, tuple[str, Callable]], where: str) -> dict:
    """The table with each value read by its type; missing, unknown and mistyped keys raise WeightsError."""
    missing = [k for k in types if k not in table and k not in _OPTIONAL]
    unknown = [k for k in table if k not in types]
    if missing or unknown:
        found = {"missing": missing, "unknown": unknown}
        what = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in found.items() if keys)
        raise WeightsError(f"{where}: keys {what}")
    out = {}
    for key, (needed, read) in types.items():
        if key not in table:
            continue
        try:
            out[key] = read(table[key])
        except (TypeError, ValueError):
            raise WeightsError(f"{where}: {key} = {table[key]!r}: {needed} is needed") from None
    return out


def _exactly(kind: type) -> Callable:
    def read(value):
        if type(value) is not kind:
            raise TypeError
        return value

    return read


def number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _list_of(read: Callable) -> Callable:
    return lambda values: tuple(read(value) for value in _exactly(list)(values))


def _spins(value: object):
    return value if value == "ignored" else _list_of(_exactly(int))(value)


def _periodic(value: object) -> str:
    if value not in PERIODIC:
        raise ValueError
    return value


def _energies(table: object) -> dict[str, float]:
    return {key: number(value) for key, value in _exactly(dict)(table).items()}


_OPTIONAL = ("periodic",)
TEXT = ("text", _exactly(str))
TABLE = ("a table", _exactly(dict))
TEXTS = ("a list of texts", _list_of(_exactly(str)))
_CARD_TYPES = {
    "name": TEXT,
    "tag": TEXT,
    "version": TEXT,
    "family": TEXT,
    "summary": TEXT,
    "conservative": ("true or false", _exactly(bool)),
    "cutoff": ("a number in Å", number),
    "dtype": TEXT,
    "sha256": TEXT,
    "licence": TEXT,
    "citation": TEXTS,
    "charges": ("a list of whole numbers", _list_of(_exactly(int))),
    "spins": ('"ignored" or a list of multiplicities 2S+1', _spins),
    "config": TABLE,
    "heads": ("a list of tables", _exactly(list)),
    "training": TABLE,
    "accuracy": TABLE,
}
_HEAD_TYPES = {
    "name": TEXT,
    "level_of_theory": TEXT,
    "elements": TEXTS,
    "reference_source": TEXT,
    "data": TEXT,
    "reference": ("a table of energies in eV", _energies),
    "periodic": (f"one of {', '.join(PERIODIC)}", _periodic),
}
