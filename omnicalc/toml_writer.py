"""TOML text from plain dicts: deterministic, and exact for floats, which ``tomllib`` reads back unchanged."""

import json
import re
from collections.abc import Mapping

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(table: Mapping) -> str:
    """The TOML text of ``table``: keys in the order given, plain values before sub-tables.

    Values may be str, bool, int, float, lists of these, mappings, and lists of mappings (array of tables);
    numpy numbers count as int and float. Raises :class:`TypeError`, naming the key, for anything else.
    """
    return "\n".join(_lines(table, ())).strip("\n") + "\n"


def _lines(table: Mapping, path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(k)} = {_value(v, (*path, k))}" for k, v in table.items() if not _is_table(v)]
    for key, value in table.items():
        here = (*path, key)
        header = ".".join(_key(part) for part in here)
        if isinstance(value, Mapping):
            lines += ["", f"[{header}]", *_lines(value, here)]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{header}]]", *_lines(item, here)]
    return lines


def _is_table(value: object) -> bool:
    """Whether the value is written as a table of its own: a mapping, or a list of nothing but mappings."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    # TOML's basic strings are JSON's, but for DEL
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object, path: tuple[str, ...]) -> str:
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()  # a numpy number
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item, path) for item in value)}]"
    if isinstance(value, Mapping):  # inside a list that holds other things too
        return f"{{{', '.join(f'{_key(k)} = {_value(v, (*path, k))}' for k, v in value.items())}}}"
    raise TypeError(f"{'.'.join(path)}: TOML cannot hold {value!r} ({type(value).__name__})")
