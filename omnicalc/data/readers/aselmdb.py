"""ASE-LMDB: the layout of OMol25 and OMat24 (an ASE database in an LMDB file), read here without further packages
than lmdb.

Keys "1", "2", ... hold zlib-compressed JSON of ASE's database rows (``numbers``, ``positions``, ``cell``, ``pbc``,
``energy``, ``forces``, :data:`COLUMNS`, ``key_value_pairs``, ``data``); "nextid" the next free number, "deleted_ids"
what is gone.
OMol25 puts charge, spin and the source into ``data``.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.jsonio import decode

from omnicalc.database_file import scalars
from omnicalc.errors import InputError

COLUMNS = ("initial_charges", "initial_magmoms", "masses", "momenta", "tags")  # per atom, as ASE's rows have them
_NOT_IDS = {b"nextid", b"deleted_ids", b"metadata"}


def open_file(path: Path) -> "AseLmdb":
    return AseLmdb(path)


class AseLmdb(Sequence):
    """Rows of one file, in the order of their numbers; read one at a time."""

    def __init__(self, path: Path):
        try:
            import lmdb
        except ImportError:
            raise InputError(f"{path}: reading ASE-LMDB needs lmdb; type: pip install 'omnicalc[train]'") from None
        self.path = path
        try:
            self._env = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=True, meminit=False, max_dbs=1
            )
        except lmdb.Error as error:
            raise InputError(f"{path}: not an LMDB file ({error})") from None
        with self._env.begin() as transaction:
            found = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
        rows = [key for key in found if key not in _NOT_IDS]
        if not rows or not all(key.isdigit() for key in rows):
            raise InputError(f"{path}: keys {found[:3]} found; the rows 1, 2, ... of an ASE database are needed")
        self._keys = sorted(rows, key=int)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, k: int) -> Atoms:
        with self._env.begin() as transaction:
            raw = transaction.get(self._keys[k])
        try:
            return atoms_of(decode(zlib.decompress(raw).decode()))
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"{self.path}, row {self._keys[k].decode()}: not a row of ASE-LMDB ({error})") from None


def atoms_of(row: dict) -> Atoms:
    """The structure and labels of one database row."""
    atoms = Atoms(
        np.asarray(row["numbers"], dtype=int),
        np.asarray(row["positions"], dtype=float),
        cell=row.get("cell"),
        pbc=row.get("pbc", False),
    )
    for key in COLUMNS:
        if row.get(key) is not None:
            atoms.set_array(key, np.asarray(row[key]))
    atoms.info.update(scalars(row.get("key_value_pairs") or {}, row.get("data") or {}))
    labels = {key: row[key] for key in ("energy", "forces", "stress") if row.get(key) is not None}
    if labels:
        atoms.calc = SinglePointCalculator(
            atoms, **{k: float(v) if k == "energy" else np.asarray(v, dtype=float) for k, v in labels.items()}
        )
    return atoms
