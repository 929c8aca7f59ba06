"""TOML files of recipes, read strictly into dataclasses."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from omnicalc.errors import InputError


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


def check_known(kind: type, table: Mapping, where: str) -> None:
    """Raise :class:`InputError` for keys of ``table`` that are no fields of the dataclass ``kind``."""
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InputError(f"unknown keys in {where}: {', '.join(unknown)}; known: {', '.join(known)}")


def tuples(table: Mapping) -> dict:
    """``table`` with lists as the tuples that frozen dataclasses hold."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
