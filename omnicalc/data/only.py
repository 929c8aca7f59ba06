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
        wanted = {value.strip() for value in values.split(",")} - {""}
        if not (key and equals and wanted):
            raise InputError(f"--only '{condition}' given; KEY=VALUE or KEY=VALUE,VALUE is needed, as in origin=md300")
        met = [atoms for atoms in left if str(atoms.info.get(key)) in wanted]
        if not met:
            raise InputError(f"--only {condition}: no frame of '{source}' is left; {_what_there_is(left, key)}")
        left = met
    return left


def _what_there_is(frames: Sequence[Atoms], key: str) -> str:
    counts = Counter(str(atoms.info[key]) for atoms in frames if key in atoms.info)
    if not counts:
        keys = ", ".join(sorted(set().union(*(atoms.info for atoms in frames)))) or "none"
        return f"none has the key '{key}'; keys: {keys}"
    shown = ", ".join(value for value, _ in counts.most_common(_MOST_SHOWN))
    return f"values of '{key}': {shown}{', ...' if len(counts) > _MOST_SHOWN else ''}"
