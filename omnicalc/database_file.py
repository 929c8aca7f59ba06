"""Structures of ASE's databases (.db, .json), with what their rows know beside the atoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


def read_database(path: Path) -> list[Atoms]:
    """Structures of all rows, in their order; single numbers and texts of ``key_value_pairs`` and ``data``, such as
    split and charge, in ``info``, which ``ase.io.read`` leaves out.
    """
    import numpy as np
    from ase.db import connect

    found = []
    with connect(path, serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            known = {**row.key_value_pairs, **row.data}
            atoms.info.update({k: v for k, v in known.items() if isinstance(v, str | int | float | np.generic)})
            found.append(atoms)
    return found
