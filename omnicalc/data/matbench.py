"""Raw Matbench tasks with structures (Dunn et al., npj Comput. Mater. 6, 138 (2020)): one JSON table, gzipped.

``{"index": [...], "columns": ["structure", TARGET], "data": [[structure, value], ...]}``, structures as pymatgen writes
them: a lattice matrix and sites with their species and Cartesian positions.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from omnicalc.errors import InputError

FOLDS, SEED = 5, 18012019  # of the benchmark's shuffled folds, for its regression tasks


def read_matbench(path: Path | str) -> Iterator[Atoms]:
    """Crystals in the order of the table; ``info`` holds the target under its own name, with spaces as underscores.

    Raises :class:`InputError` for another file, a task without structures, or a site with several species.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; a matbench_*.json.gz is needed")
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            table = json.load(file)
        columns, rows, index = table["columns"], table["data"], table["index"]
    except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table of Matbench ({type(error).__name__}: {error})") from None
    if "structure" not in columns or len(columns) != 2:
        raise InputError(f"{path}: columns {', '.join(columns)}; a task with a structure and one target is needed")
    first = columns.index("structure")
    target = columns[1 - first].replace(" ", "_")
    for name, row in zip(index, rows, strict=True):
        atoms = _crystal(row[first], f"{path}: row {name}")
        atoms.info = {target: _number(row[1 - first], f"{path}: row {name}"), "molecule": str(name), "charge": 0}
        yield atoms


def target_of(path: Path | str) -> str:
    """The name of the target of a task."""
    atoms = next(read_matbench(path), None)
    if atoms is None:
        raise InputError(f"{path}: no row in this table")
    return next(iter(atoms.info))


def matbench_folds(n: int) -> list[np.ndarray]:
    """Test rows of the five folds of a regression task with ``n`` rows; the others of each are its training rows."""
    order = np.arange(n)
    np.random.RandomState(SEED).shuffle(order)
    return [np.sort(part) for part in np.array_split(order, FOLDS)]


def _number(value: object, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: its target is {value!r}; a number is needed") from None


def _crystal(structure: dict, where: str) -> Atoms:
    try:
        cell = np.array(structure["lattice"]["matrix"], dtype=float)
        sites = structure["sites"]
        species = [site["species"] for site in sites]
        positions = np.array([site["xyz"] for site in sites], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: not a structure as pymatgen writes them ({error})") from None
    mixed = next((k for k, s in enumerate(species) if len(s) != 1 or float(s[0].get("occu", 1)) != 1), None)
    if mixed is not None:
        raise InputError(f"{where}: site {mixed} is shared by several species; ordered structures alone can be read")
    symbols = [s[0]["element"].rstrip("+-0123456789") for s in species]
    unknown = sorted({s for s in symbols if atomic_numbers.get(s, 0) < 1})
    if unknown:
        raise InputError(f"{where}: unknown element {', '.join(unknown)}")
    return Atoms(symbols, positions, cell=cell, pbc=True)
