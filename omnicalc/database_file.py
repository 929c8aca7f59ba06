"""Structures of ASE's databases (.db, .json), with what their rows know beside the atoms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


def read_database(path: Path) -> list[Atoms]:
    """Structures of all rows, in their order; their :func:`scalars`, which ``ase.io.read`` leaves out, in ``info``."""
    from ase.db import connect

    found = []
    with connect(path, serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info.update(scalars(row.key_value_pairs, row.data))
            found.append(atoms)
    return found


def scalars(*tables: Mapping) -> dict:
    """Single numbers and texts of a row's ``key_value_pairs`` and ``data``, such as split and charge."""
    import numpy as np

    known = {key: value for table in tables for key, value in table.items()}
    return {key: value for key, value in known.items() if isinstance(value, str | int | float | np.generic)}
