"""Writes labelled frames as ASE-LMDB, the layout of OMol25 (an ASE database in an LMDB file); the reader is
:mod:`omnicalc.data.readers.aselmdb`.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.jsonio import encode

from omnicalc.charge_and_spin import charge_of
from omnicalc.data.readers.aselmdb import COLUMNS
from omnicalc.errors import InputError
from omnicalc.files import write_atomically

_LARGEST = 1 << 40  # bytes that the file may grow to; it takes what it needs
_LABELS = ("energy", "forces", "stress")


def write_ase_lmdb(path: Path, frames: Sequence[Atoms]) -> None:
    """One file of all ``frames``: labels of their calculators, and what is in ``info`` (charge, spin, ...) as data.

    Raises:
        InputError: the package lmdb is not installed, or a frame has a column for which a row has no place.
    """
    try:
        import lmdb
    except ImportError:
        raise InputError(f"{path}: writing ASE-LMDB needs lmdb; type: pip install 'omnicalc[train]'") from None

    lost = sorted(set().union(*(atoms.arrays for atoms in frames)) - {"numbers", "positions", *COLUMNS})
    if lost:
        raise InputError(
            f"{path}: frames have the per-atom columns {', '.join(lost)}, for which ASE-LMDB has no place; write "
            "extended XYZ, or take them out"
        )

    def save(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        about = {"nextid": len(frames) + 1, "deleted_ids": [], "metadata": {}}
        settings = {"subdir": False, "lock": False, "map_size": _LARGEST}
        with lmdb.open(str(temporary), **settings) as env, env.begin(write=True) as out:
            for k, atoms in enumerate(frames, start=1):
                row = _row(atoms, f"{path}: frame {k - 1}")
                out.put(str(k).encode(), zlib.compress(encode(row).encode()))
            for key, value in about.items():
                out.put(key.encode(), zlib.compress(json.dumps(value).encode()))

    write_atomically(path, save)


def _row(atoms: Atoms, where: str) -> dict:
    """A row of ASE's database; times and id depend on nothing but the frame."""
    results = {} if atoms.calc is None else atoms.calc.results
    row = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": np.asarray(atoms.cell), "pbc": atoms.pbc}
    row |= {key: atoms.arrays[key] for key in COLUMNS if key in atoms.arrays}
    row |= {key: results[key] for key in _LABELS if key in results}
    if results:
        row |= {"calculator": "unknown", "calculator_parameters": {}}
    row["data"] = {key: value for key, value in atoms.info.items() if np.ndim(value) == 0}
    if atoms.has("initial_charges"):  # other readers look for the total charge here alone
        row["data"]["charge"] = charge_of(atoms, where)
    unique = hashlib.md5(encode(row).encode(), usedforsecurity=False).hexdigest()
    return row | {"key_value_pairs": {}, "unique_id": unique, "ctime": 0.0, "mtime": 0.0, "user": ""}
