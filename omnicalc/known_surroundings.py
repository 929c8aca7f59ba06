"""``surroundings.json`` beside the weights: between which bounds the surroundings of atoms lie in the training data.

Outside of them a network gives smooth nonsense. The bounds are of each head and pair of elements, few enough to be read
by people, and hold for systems of any size. They were taken without the one frame in two thousand that is most extreme.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from omnicalc.errors import WeightsError
from omnicalc.files import write_atomically
from omnicalc.surroundings import REACH, SHELL, Surroundings, bonding_distance

FILE = "surroundings.json"
_CLOSER = 0.9  # of the shortest distance in the data: what is beyond it still counts as known
_FURTHER = 1.05  # times the farthest nearest atom
_MORE = 1.1  # times the fullest shell, and one atom: denser by some 10 % is still known
_DOWN = {"least": np.inf, "closest": np.inf, "fewest": np.inf}  # lower bounds, as of an element that was never seen


class Unlike(NamedTuple):
    """Atoms beyond the bounds."""

    atoms: np.ndarray  # (n,) ascending
    atom: int  # one of them
    words: str  # what is the matter with it: "has 6 Cl within 3.48 Å, none had more than 4"


@dataclass(frozen=True)
class Known:
    """Bounds of one head, by the elements of an atom (first axis) and of its neighbours."""

    elements: tuple[int, ...]
    least: np.ndarray  # (E, E) neighbours within the bonding distance
    most: np.ndarray  # (E, E)
    shell: np.ndarray  # (E, E) most within SHELL; inf where no periodic structure was learned, only small ones
    closest: np.ndarray  # (E, E) Å; inf where such a pair was never near
    farthest: np.ndarray  # (E, E) Å, distance of the nearest atom where it is of this element
    fewest: np.ndarray  # (E,) neighbours of any element within the bonding distance
    alone: np.ndarray  # (E,) 1.0 where atoms without any neighbour were learned, else 0.0

    def unlike(self, s: Surroundings) -> Unlike | None:
        """The atoms that are beyond the bounds; None where all are within."""
        of = {f.name: getattr(self, f.name)[s.rows] for f in fields(self)[1:]}
        bonds, nearest = s.bonds.sum(axis=1), s.nearest
        farthest = np.take_along_axis(of["farthest"], s.closest.argmin(axis=1)[:, None], axis=1)[:, 0]
        beyond = {
            "most": s.bonds > of["most"],
            "least": s.bonds < of["least"],
            "closest": s.closest < _CLOSER * of["closest"],
            "shell": s.shell > _MORE * of["shell"] + 1,
            "alone": np.isinf(nearest) & (of["alone"] == 0),
            "farthest": (bonds == 0) & np.isfinite(nearest) & (nearest > _FURTHER * farthest),
            "fewest": bonds < of["fewest"],
        }
        atoms = [np.nonzero(found)[0] for found in beyond.values() if found.any()]
        if not atoms:
            return None
        kind, found = next((kind, found) for kind, found in beyond.items() if found.any())
        atom, *column = map(int, np.unravel_index(int(found.argmax()), found.shape))
        return Unlike(np.unique(np.concatenate(atoms)), atom, self._words(kind, s, atom, *column))

    def _words(self, kind: str, s: Surroundings, atom: int, column: int | None = None) -> str:
        """How an atom is beyond a bound."""
        row = int(s.rows[atom])
        column = int(s.closest[atom].argmin()) if column is None else column
        other = chemical_symbols[self.elements[column]]
        bound = getattr(self, kind)[row]
        bound = float(bound[column] if bound.ndim else bound)
        bonding = bonding_distance(self.elements[row], self.elements[column])
        counted, near = f"{s.bonds[atom, column]} {other} within {bonding:.2f} Å", s.closest[atom, column]
        nearer = f"none within {max(REACH, bonding):.1f} Å" if np.isinf(bound) else f"none nearer than {bound:.2f} Å"
        said = {
            "most": f"has {counted}, none had more than {bound:.0f}",
            "least": f"has {counted}, none had fewer than {bound:.0f}",
            "closest": f"has {other} at {near:.2f} Å, {nearer}",
            "shell": f"has {s.shell[atom, column]} {other} within {SHELL} Å, none had more than {bound:.0f}",
            "alone": "has no other atom near, all had one",
            "farthest": f"has {other} at {near:.2f} Å as its nearest atom, "
            + (f"which was at {bound:.2f} Å at most" if bound else "which it never was"),
            "fewest": f"has {s.bonds[atom].sum()} neighbours at bonding distances, none had fewer than {bound:.0f}",
        }
        return said[kind]

    def merged(self, other: Known) -> Known:
        """What either knows."""
        elements = tuple(sorted({*self.elements, *other.elements}))
        a, b = self._on(elements), other._on(elements)
        return Known(elements, **{k: (np.minimum if k in _DOWN else np.maximum)(a[k], b[k]) for k in a})

    def _on(self, elements: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The bounds for more elements: an atom that was seen never had those as neighbours."""
        place = [elements.index(z) for z in self.elements]
        out = {}
        for f in fields(self)[1:]:
            mine = getattr(self, f.name)
            full = np.full((len(elements),) * mine.ndim, _DOWN.get(f.name, -np.inf))
            full[place] = np.inf if f.name == "closest" or np.isinf(mine).all() else 0.0
            full[np.ix_(*[place] * mine.ndim)] = mine
            out[f.name] = full
        return out


def read_known(path: Path) -> dict[str, Known]:
    """Heads and their bounds; none where there is no such file. Raises :class:`WeightsError` for a damaged one."""
    if not path.is_file():
        return {}
    try:
        heads = json.loads(path.read_text(encoding="utf-8"))
        return {name: _known(table) for name, table in heads.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is damaged ({error}); copy it again from where it came, or remove it") from None


def write_known(path: Path, heads: Mapping[str, Known]) -> None:
    """The file of :func:`read_known`: a line for each bound."""
    blocks = []
    for name, known in heads.items():
        lines = [f'  "elements": {json.dumps([chemical_symbols[z] for z in known.elements])}']
        lines += [f'  "{f.name}": {json.dumps(_plain(getattr(known, f.name)))}' for f in fields(Known)[1:]]
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    text = "{\n" + ",\n".join(blocks) + "\n}\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _known(table: Mapping) -> Known:
    elements = tuple(atomic_numbers[symbol] for symbol in table["elements"])
    bounds = {f.name: np.array(table[f.name], dtype=float) for f in fields(Known)[1:]}
    bounds = {name: np.where(np.isnan(bound), np.inf, bound) for name, bound in bounds.items()}
    for name, bound in bounds.items():
        if set(bound.shape) != {len(elements)}:
            raise ValueError(f"{name} does not fit {len(elements)} elements")
    return Known(elements, **bounds)


def _plain(bound: np.ndarray) -> list:
    """Lists of numbers; None for what has no end."""
    if bound.ndim == 2:
        return [_plain(row) for row in bound]
    return [None if np.isinf(x) else round(float(x), 3) if x % 1 else int(x) for x in bound]
