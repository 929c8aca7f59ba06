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

from omnicalc.data.protocols import finite_number
from omnicalc.errors import InputError


def read_matbench(path: Path | str) -> Iterator[Atoms]:
    """Crystals in the order of the table; ``info`` holds, first, the target under its name, spaces as underscores.

    Raises :class:`InputError` for another file, a task without structures, a row that is no structure with a finite
    target, or a site with several species.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; a matbench_*.json.gz is needed")
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            table = json.load(file)
        columns, rows, index = map(list, (table["columns"], table["data"], table["index"]))
    except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table of Matbench ({type(error).__name__}: {error})") from None
    if "structure" not in columns or len(columns) != 2:
        names = ", ".join(map(str, columns))
        raise InputError(f"{path}: columns {names}; a task with a structure and one target is needed")
    if len(index) != len(rows):
        raise InputError(f"{path}: {len(rows)} rows for an index of {len(index)}, so this copy is not whole")
    first = columns.index("structure")
    target = str(columns[1 - first]).replace(" ", "_")
    for name, row in zip(index, rows, strict=True):
        where = f"{path}: row {name}"
        if not isinstance(row, list) or len(row) != 2:
            raise InputError(f"{where}: a structure and one target are needed")
        atoms, value = _crystal(row[first], where), finite_number(row[1 - first], f"{where}: its target")
        atoms.info = {target: value, "molecule": str(name), "charge": 0}
        yield atoms


def _crystal(structure: dict, where: str) -> Atoms:
    try:
        cell = np.array(structure["lattice"]["matrix"], dtype=float)
        sites = structure["sites"]
        species = [site["species"] for site in sites]
        positions = np.array([site["xyz"] for site in sites], dtype=float).reshape(len(sites), 3)
        mixed = next((k for k, s in enumerate(species) if len(s) != 1 or float(s[0].get("occu", 1)) != 1), None)
        symbols = [s[0]["element"].rstrip("+-0123456789") for s in species]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{where}: not a structure as pymatgen writes them ({what})") from None
    if mixed is not None:
        raise InputError(f"{where}: site {mixed} is shared by several species; ordered structures alone can be read")
    if not symbols or cell.shape != (3, 3) or not (np.isfinite(cell).all() and np.isfinite(positions).all()):
        raise InputError(f"{where}: a cell of 3 x 3 and atoms at finite positions are needed")
    unknown = sorted({s for s in symbols if atomic_numbers.get(s, 0) < 1})
    if unknown:
        raise InputError(f"{where}: unknown element {', '.join(unknown)}")
    return Atoms(symbols, positions, cell=cell, pbc=True)
