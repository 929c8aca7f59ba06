"""Frames by the values of their keys, as in ``--only origin=md300,md400 --only split=test``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_MOST_SHOWN = 12  # values in a message


def only(frames: Sequence[Atoms], conditions: Sequence[str], source: str) -> list[Atoms]:
    """Those of ``frames`` that meet every condition ``KEY=VALUE[,VALUE...]``: the key has one of the values.

    Raises:
        InputError: a condition of another form, or no frame is left; ``source`` names the frames.
    """
    left = list(frames)
    for condition in conditions:
        key, equals, values = condition.partition("=")
        if not (key and equals and _listed(values)):
            raise InputError(f"--only '{condition}' given; KEY=VALUE or KEY=VALUE,VALUE is needed, as in origin=md300")
        met = [atoms for atoms in left if has_one_of(atoms, key, values)]
        if not met:
            raise InputError(f"--only {condition}: no frame of '{source}' is left; {_what_there_is(left, key)}")
        left = met
    return left


def has_one_of(atoms: Atoms, key: str, values: str) -> bool:
    """Whether ``key`` of a frame has one of ``values``, written with commas between (``md300,md400``), or has all of
    it as its one value, commas and all.
    """
    return str(atoms.info.get(key)) in {values, *_listed(values)}


def _listed(values: str) -> set[str]:
    return {value.strip() for value in values.split(",")} - {""}


def _what_there_is(frames: Sequence[Atoms], key: str) -> str:
    counts = Counter(str(atoms.info[key]) for atoms in frames if key in atoms.info)
    if not counts:
        keys = ", ".join(sorted(set().union(*(atoms.info for atoms in frames)))) or "none"
        return f"none has the key '{key}'; keys: {keys}"
    shown = ", ".join(value for value, _ in counts.most_common(_MOST_SHOWN))
    return f"values of '{key}': {shown}{', ...' if len(counts) > _MOST_SHOWN else ''}"
