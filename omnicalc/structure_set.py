"""Many structures: files, frames of files, folders of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omnicalc.errors import InputError
from omnicalc.structure_file import Cell, read_structures

if TYPE_CHECKING:
    from ase import Atoms


# what lies beside structures in a folder, by suffix
_OTHERS = (".md", ".txt", ".csv", ".toml", ".yaml", ".yml", ".png", ".pdf", ".svg", ".log", ".npz", ".py", ".sh")


class Member(NamedTuple):
    """A structure and where it comes from."""

    file: str
    frame: int  # among those taken from this file
    atoms: Atoms


def read_set(
    paths: Sequence[Path], index: int | str = ":", cell: Cell | None = None, no_pbc: bool = False
) -> list[Member]:
    """All structures of files and folders, in the order given; of a folder its files by name, without hidden ones and
    those that are no structures by their suffix (README.md, table.csv).

    ``index``, ``cell`` and ``no_pbc`` as for :func:`omnicalc.structure_file.read_structures`, for each file. Raises
    :class:`InputError` for a folder without structures and for any file that cannot be read.
    """
    found = []
    for path in paths:
        for file in _files(path):
            frames = read_structures(file, index, cell, no_pbc)
            found += [Member(str(file), k, atoms) for k, atoms in enumerate(frames)]
    if not found:
        raise InputError("no structure was given; give files or folders")
    return found


def set_hash(hashes: Sequence[str]) -> str:
    """sha256 over those of the members, in their order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    path = path.expanduser()
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.iterdir() if each.is_file() and _may_be_structure(each))
    if not files:
        raise InputError(f"{path} is a folder without structures; structure files, or a folder of them, are needed")
    return files


def _may_be_structure(file: Path) -> bool:
    return not file.name.startswith(".") and file.suffix.lower() not in _OTHERS
