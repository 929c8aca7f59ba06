"""Entries in an extended XYZ file that grows, and failures in a file beside it; both survive being killed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.charge_and_spin import charge_and_spin
from omnicalc.errors import InputError
from omnicalc.files import write_atomically

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.data.labels.method import Method


_KEY = re.compile(r'(?<!\S)key="?([0-9a-f]{16})"?(?!\S)')  # of a comment line, as label_key makes them


class Store:
    """Entries of one ``method`` by key. ``add`` appends and flushes; a last entry that was cut off is dropped on
    opening.

    Raises:
        InputError: the file exists and holds something that is not such entries.
    """

    def __init__(self, path: Path, method: Method):
        self.path = path
        self._method = method
        self.failures_path = path.with_name(f"{path.name}.failures.jsonl")
        self.keys: set[str] = set()
        self.failures: dict[str, str] = {}
        if path.is_file():
            self._open()
        if self.failures_path.is_file():
            for line in self.failures_path.read_text(encoding="utf-8").splitlines():
                try:
                    failure = json.loads(line)
                except json.JSONDecodeError:  # cut off while being written
                    continue
                self.failures[failure["key"]] = failure["reason"]

    def add(self, labelled: Atoms) -> None:
        from ase.io import write

        with self.path.open("a", encoding="utf-8") as file:
            write(file, labelled, format="extxyz")
        self.keys.add(labelled.info["key"])

    def fail(self, key: str, origin: str, reason: str) -> None:
        with self.failures_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "structure": origin, "reason": reason}) + "\n")
        self.failures[key] = reason

    def sort(self, order: list[str]) -> None:
        """Rewrite the file with its entries in the order of these keys, once all are there."""
        blocks = {self._key(block, _info(block)): block for block in _blocks(self.path)[0]}
        first = [blocks.pop(key) for key in dict.fromkeys(order) if key in blocks]
        text = "".join(first + list(blocks.values()))
        write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def _open(self) -> None:
        blocks, whole = _blocks(self.path)
        for block in blocks:
            info = _info(block)
            self._check_method(info)
            key = self._key(block, info)
            self._check_charge(block, key)
            self.keys.add(key)
        if not whole:
            text = "".join(blocks)
            write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def _check_method(self, info: dict) -> None:
        """Energies of two levels of theory in one file would be learned as if they were of one."""
        method = self._method
        level, settings = (str(info.get(key, "")) for key in ("level_of_theory", "settings"))
        if level and (level != method.name or not settings.startswith(method.settings)):
            theirs = f"{level}, {settings}" if settings else level
            raise InputError(
                f"'{self.path}' holds labels by {theirs}; {method.identity} is asked for. Ask for theirs (--method, "
                "--grid, --convergence), or choose another --out"
            )

    def _check_charge(self, block: str, key: str) -> None:
        """An entry of a version that did not know initial charges would stand beside the right one."""
        if "initial_charges" not in _comment(block):
            return
        from ase.io import read

        try:
            charge_and_spin(read(io.StringIO(block), format="extxyz"))
        except InputError as error:
            raise InputError(
                f"'{self.path}' has an entry (key={key}) labelled by another charge than its own: "
                f"{error}. Choose another --out, or take that entry out of the file"
            ) from None

    def _key(self, block: str, info: dict) -> str:
        """As it is written: the parser takes 0123456789012345 and 1234567890e12345 for numbers, all such as the latter
        for infinity, so that entries were labelled again, and lost where they were taken for one.
        """
        if "key" not in info:
            raise InputError(f"'{self.path}' holds frames that are no entries of ours; choose another --out")
        written = _KEY.search(_comment(block))
        return written[1] if written else str(info["key"])


def _info(block: str) -> dict:
    from ase.io.extxyz import key_val_str_to_dict

    return key_val_str_to_dict(_comment(block))


def _comment(block: str) -> str:
    return block.split("\n", 2)[1]


def _blocks(path: Path) -> tuple[list[str], bool]:
    """Whole frames of an extended XYZ file as text, and whether nothing was left over."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    blocks, k = [], 0
    while k < len(lines):
        if not lines[k].strip().isdecimal():
            raise InputError(f"'{path}' is not an extended XYZ file (line {k + 1}); choose another --out")
        end = k + 2 + int(lines[k])
        if end > len(lines) or not lines[end - 1].endswith("\n"):
            return blocks, False
        blocks.append("".join(lines[k:end]))
        k = end
    return blocks, True
