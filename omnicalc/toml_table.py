"""TOML files of recipes, read strictly into dataclasses."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_origin

from omnicalc.errors import InputError

# what a number may be, as a test and in words
AT_LEAST_1 = (lambda x: x >= 1, "a number of at least 1")
ABOVE_0 = (lambda x: x > 0, "a number above 0")
NOT_NEGATIVE = (lambda x: x >= 0, "a number of 0 or more")
FRACTION = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
SEED = (lambda x: 0 <= x < 2**63, "a whole number from 0 to 2**63 - 1")
_IN_WORDS = {str: "text", int: "a whole number", float: "a number", dict: "a table", bool: "true or false"}


def one_of(*allowed: str) -> tuple:
    return (lambda x: x in allowed), f"one of {', '.join(allowed)}"


def read_recipe_table(path: Path, shipped: Path) -> dict:
    """The table of a recipe, read from ``path``.

    Raises:
        InputError: no such file (named with the recipes in the folder ``shipped``), or bad TOML.
    """
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in shipped.glob("*.toml")))
        raise InputError(f"no recipe at '{path}'; give a TOML file, or one of the shipped recipes: {names}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe '{path}' is not valid TOML: {error}") from None


def find_shipped(name: str | Path, shipped: Path) -> Path:
    """A path as given, or the recipe of that name in the folder ``shipped``."""
    ours = shipped / f"{name}.toml"
    return ours if ours.is_file() and not Path(name).is_file() else Path(name)


def strict(kind: type, table: object, where: str, ranges: Mapping):
    """``table`` as the dataclass ``kind``. Raises :class:`InputError` for keys that are missing or unknown, and values
    that cannot be: not of the annotated type, or outside of ``ranges``, from (name of a class, key) to a test and what
    is needed in words.
    """
    if not isinstance(table, dict):
        raise InputError(f"{where} is {table!r}; one table of keys and values is needed")
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InputError(f"unknown keys in {where}: {', '.join(unknown)}; known: {', '.join(known)}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [key for key in needed if key not in table]
    if missing:
        raise InputError(f"keys missing in {where}: {', '.join(missing)}")
    made = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
    _check_values(made, where, ranges)
    return made


def _check_values(table, where: str, ranges: Mapping) -> None:
    """Raise :class:`InputError` naming the key for a value of ``table`` (a recipe's dataclass) that cannot be."""
    for field in fields(table):
        value = getattr(table, field.name)
        if not fits(value, field.type):
            raise InputError(f"{field.name} = {value!r} in {where}: {in_words(field.type)} is needed")
        good, needed = _range(type(table), field.name, ranges)
        if good is not None and value is not None and not good(value):
            raise InputError(f"{field.name} = {value!r} in {where}: {needed} is needed")


def _range(kind: type, key: str, ranges: Mapping) -> tuple:
    """What values a key may have, as a test and in words; that of the class it is inherited from, if need be."""
    return next((ranges[c.__name__, key] for c in kind.__mro__ if (c.__name__, key) in ranges), (None, ""))


def fits(value: object, kind: object) -> bool:
    """Whether a value read from TOML (lists as tuples) is of the annotated type; numbers must be finite."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int
    return isinstance(value, kind)


def in_words(kind: object) -> str:
    """What :func:`fits` a type, for messages."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return " or ".join(in_words(part) for part in parts if part is not NoneType)
    if origin is tuple:
        number = "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)}"
        return f"{number}, each {in_words(parts[0])},"
    if origin in (dict, Mapping):
        return f"a table of values, each {in_words(parts[1])},"
    return _IN_WORDS.get(kind, "a table")
