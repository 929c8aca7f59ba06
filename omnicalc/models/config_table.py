"""The ``[config]`` table of a card, read strictly into a family's dataclass of settings, and written back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from math import isfinite
from typing import ClassVar, Self

from omnicalc.errors import WeightsError
from omnicalc.toml_table import fits, in_words


def check_known(family: str, kind: type, table: Mapping, besides: Iterable[str] = ()) -> None:
    """Raise :class:`WeightsError` for keys that are no settings of the dataclass ``kind`` and not ``besides``."""
    known = sorted(f.name for f in fields(kind))
    unknown = sorted(set(table) - set(known) - set(besides))
    if unknown:
        raise WeightsError(f"unknown {family} settings: {', '.join(unknown)}; known: {', '.join(known)}")


def made(kind: type, table: Mapping):
    """``table``, whose keys are known, as the dataclass ``kind``; lists, nested ones included, become the tuples that
    frozen settings hold. Raises :class:`WeightsError` for a value that is not of the annotated type.
    """
    found = {key: _tuple(value) for key, value in table.items()}
    try:
        config = kind(**found)  # whose own checks say more of what is needed
    except TypeError:
        _check_types(kind, found)
        raise
    _check_types(kind, found)
    return config


def _check_types(kind: type, found: Mapping) -> None:
    for field in fields(kind):
        if field.name in found and not fits(found[field.name], field.type):
            value = _list(found[field.name])
            raise WeightsError(f"{field.name} = {value!r} given; {in_words(field.type).rstrip(',')} is needed")


def check_heads(heads: Iterable[str]) -> None:
    """Raise :class:`WeightsError` unless there are heads, and each has a name that tensors can bear."""
    if isinstance(heads, str) or not heads or len(set(heads)) < len(heads):
        given = heads if isinstance(heads, str) else list(heads)
        raise WeightsError(f"heads = {given!r} given; at least one is needed, each with a name of its own")
    for name in heads:
        if not names_tensors(name):
            raise WeightsError(
                f"heads: '{name}' given; tensors are named after it, so a text without '.' that is no word of torch's "
                "own is needed, as in pbe0-ts"
            )


def names_tensors(name: str) -> bool:
    """Whether tensors of a head can be named after it."""
    from torch.nn import ModuleDict

    return bool(name) and "." not in name and not hasattr(ModuleDict, name)


class ConfigTable:
    """Of a frozen dataclass of settings: read from a card's table, and written to one."""

    family: ClassVar[str]

    @classmethod
    def from_dict(cls, table: Mapping) -> Self:
        """Strict: a key that is not a setting is an error that names it."""
        check_known(cls.family, cls, table)
        return made(cls, table)

    def to_dict(self) -> dict:
        """Plain types for a card, settings that are None left out."""
        table = {key: _list(value) for key, value in asdict(self).items()}
        return {key: value for key, value in table.items() if value is not None}

    def _check_whole(self, *keys: str, least: int = 1) -> None:
        for key in keys:
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise WeightsError(f"{key} = {value!r} given; a whole number of at least {least} is needed")

    def _check_positive(self, *keys: str) -> None:
        for key in keys:
            if not is_number(value := getattr(self, key)) or value <= 0:
                raise WeightsError(f"{key} = {value!r} given; a number above 0 is needed")

    def _check_probabilities(self, *keys: str) -> None:
        for key in keys:
            if not is_number(value := getattr(self, key)) or not 0 <= value < 1:
                raise WeightsError(f"{key} = {value!r} given; a probability below 1 is needed")

    def _check_choices(self, **choices: tuple) -> None:
        for key, allowed in choices.items():
            check_choice(key, getattr(self, key), allowed)

    def _check_multiple(self, key: str, of: str) -> None:
        value, factor = getattr(self, key), getattr(self, of)
        if value % factor:
            raise WeightsError(f"{key} = {value} must be a multiple of {of} = {factor}")


def check_choice(key: str, value, allowed: tuple) -> None:
    """Raise :class:`WeightsError` unless ``value`` is one of those."""
    if value not in allowed:
        raise WeightsError(f"{key} = {value!r} is not supported; choose one of: {', '.join(map(str, allowed))}")


def is_number(value) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _tuple(value):
    return tuple(map(_tuple, value)) if isinstance(value, (list, tuple)) else value


def _list(value):
    return list(map(_list, value)) if isinstance(value, (list, tuple)) else value
