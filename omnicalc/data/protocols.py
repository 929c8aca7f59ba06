"""Benchmark protocols: which structures train, validate and test, and a property in the place of the energy."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from omnicalc.errors import InputError

SPLITS = ("train", "valid", "test")


def random_split(n: int, *, train: int, valid: int, test: int | None = None, seed: int = 0) -> list[str | None]:
    """The split of each of ``n`` structures: a permutation by numpy's default_rng(seed), cut into train, valid, test.

    ``test``: so many at most, and None for the rest; without it all that are left.
    Raises :class:`InputError` when there are fewer structures than asked for.
    """
    if train < 1 or valid < 1 or train + valid > n:
        raise InputError(
            f"{train} structures to train on and {valid} to validate on are more than the {n} there are; give fewer, "
            "at least 1 each (--train and --valid of omnicalc data split)"
        )
    order = np.random.default_rng(seed).permutation(n)
    names = np.full(n, None, dtype=object)
    names[order[:train]] = "train"
    names[order[train : train + valid]] = "valid"
    names[order[train + valid :][:test]] = "test"
    return names.tolist()


def split_frames(frames: Sequence[Atoms], splits: Sequence[str | None]) -> Iterator[Atoms]:
    """The frames with ``info["split"]`` set."""
    for atoms, split in zip(frames, splits, strict=True):
        atoms.info["split"] = split
        yield atoms


def finite_number(value: object, what: str) -> float:
    """``value`` as a float. Raises :class:`InputError`, which names it as ``what``."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{what} is {value!r}; a finite number is needed")
    return found


def with_property(frames: Iterable[Atoms], key: str) -> Iterator[Atoms]:
    """The frames with the number under ``key`` in ``info`` as their label, in the place of an energy, without forces.

    The head that is trained on them is a property's: set gives = "properties" in [model] of the recipe.
    """
    for k, atoms in enumerate(frames):
        value = atoms.info.get(key)
        if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
            known = ", ".join(sorted(k for k, v in atoms.info.items() if isinstance(v, (int, float, np.number))))
            raise InputError(f"frame {k}: no finite number under '{key}'; there are: {known or 'none'}")
        atoms.calc = SinglePointCalculator(atoms, energy=float(value))
        yield atoms
