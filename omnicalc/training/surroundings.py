"""``surroundings.json`` of new weights: the bounds of :mod:`omnicalc.known_surroundings`, taken from training data.

For weights that were trained without it: python -m omnicalc.training.surroundings RECIPE --data DATA --weights FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from omnicalc.card import CARD, Card, CardHead, read_card
from omnicalc.errors import InputError
from omnicalc.known_surroundings import FILE, Known, read_known, write_known
from omnicalc.registry import resolve
from omnicalc.surroundings import surroundings
from omnicalc.toml_table import find_shipped
from omnicalc.training.dataset import Dataset, Source, build_dataset
from omnicalc.training.recipe import RECIPES, Recipe, read_recipe

_EXTREME = 2000  # of so many frames the most extreme one is left out: data hold pieces that were pushed together


def write_surroundings(
    dataset: Dataset, card: Card, folder: Path, recipe: Recipe | None = None, progress: Callable = lambda *_: None
) -> None:
    """Write the bounds of all heads that they are known of. A head that began as one of the weights that ``recipe``
    starts from has those of the old data too; where these are not known, it has none. ``progress`` (frames looked at,
    all frames) is called often: many frames take minutes.
    """
    usual = [source for source in dataset.sources if source.settings.surroundings]
    done, total = count(1), sum(len(source.train) for source in usual)
    before, begun = _before(recipe) if recipe is not None and recipe.start else ({}, set())
    heads = {}
    for head in card.heads:
        sources = [s for s in usual if s.settings.head == head.name]
        name = head.name if recipe is None else recipe.copy_heads.get(head.name, head.name)
        old = before.get(name)
        if sources and (name not in begun or old is not None):
            found = known_of(sources, head, lambda: progress(next(done), total))
            heads[head.name] = found if old is None else found.merged(old)
        elif old is not None:
            heads[head.name] = old
    if heads:
        write_known(folder / FILE, heads)


def _before(recipe: Recipe) -> tuple[dict[str, Known], set[str]]:
    """What the weights that it starts from know, and the names of their heads."""
    folder, card = resolve(recipe.start)
    return read_known(folder / FILE), {head.name for head in card.heads}


def known_of(sources: Sequence[Source], head: CardHead, looked: Callable = lambda: None) -> Known:
    """The bounds of the training frames of ``sources``, all of this head; ``looked`` is called for each of them."""
    elements = tuple(sorted(head.numbers))
    rows: dict[int, list[dict[str, np.ndarray]]] = {z: [] for z in elements}
    for atoms in _frames(sources, looked):
        for z, extremes in _extremes(atoms, elements).items():
            rows[z].append(extremes)
    periodic = any(e.periodic for s in sources for e in s.train)
    bounds = {name: np.stack([_bound(rows[z], name) for z in elements]) for name in rows[elements[0]][0]}
    if not periodic:
        bounds["shell"] = np.full_like(bounds["shell"], np.inf)
    return Known(elements, **bounds)


def _frames(sources: Sequence[Source], looked: Callable) -> Iterator:
    """Every training frame once, though several sources may draw from one file."""
    seen = set()
    for source in sources:
        for entry in source.train:
            looked()
            key = source.paths[entry.file], entry.frame
            if key not in seen:
                seen.add(key)
                yield source.files[entry.file][entry.frame]


def _extremes(atoms, elements: tuple[int, ...]) -> dict[int, dict[str, np.ndarray]]:
    """Of each element in a frame, the bounds within which its atoms are."""
    cell, pbc = np.asarray(atoms.cell.array)[None], np.asarray(atoms.pbc)[None]
    positions, counts = np.array(atoms.positions, dtype=float), np.array([len(atoms)])
    found = surroundings(elements, atoms.numbers, positions, counts, cell, pbc)
    out = {}
    for row in np.unique(found.rows):
        mine = found.rows == row
        bonds, closest = found.bonds[mine], found.closest[mine]
        nearest, which = closest.min(axis=1), closest.argmin(axis=1)
        near = np.isfinite(nearest)
        farthest = np.zeros(len(elements))
        np.maximum.at(farthest, which[near], nearest[near])
        out[elements[row]] = {
            "least": bonds.min(axis=0),
            "most": bonds.max(axis=0),
            "shell": found.shell[mine].max(axis=0),
            "closest": closest.min(axis=0),
            "farthest": farthest,
            "fewest": bonds.sum(axis=1).min(),
            "alone": float(not near.all()),
        }
    return out


_LOWER = ("least", "closest", "fewest")


def _bound(rows: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The bound of all frames, but the most extreme of them."""
    values = np.sort(np.array([row[name] for row in rows], dtype=float), axis=0)
    left_out = int(len(rows) / _EXTREME + 0.5)
    return values[left_out] if name in _LOWER else values[-1 - left_out]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write surroundings.json beside weights that were trained before.")
    parser.add_argument("recipe", help="name of a shipped recipe, or a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's data files")
    parser.add_argument("--weights", type=Path, required=True, help="the weights folder")
    given = parser.parse_args()
    recipe, card = read_recipe(find_shipped(given.recipe, RECIPES)), read_card(given.weights / CARD)
    if recipe.heads != tuple(head.name for head in card.heads):
        raise InputError(f"the recipe makes heads {recipe.heads}; {given.weights} has others")
    write_surroundings(build_dataset(recipe, given.data, card.cutoff), card, given.weights)


if __name__ == "__main__":
    main()
