"""Which structures are the same geometry, to within what files keep."""

import hashlib

import numpy as np
from ase import Atoms

_SAME = 1e-4  # Å; two geometries that agree this closely are one


def geometry_digest(atoms: Atoms) -> bytes:
    """The same for structures whose elements, positions and cell agree; 12 bytes."""
    rounded = np.round(np.concatenate([atoms.positions, atoms.cell.array]) / _SAME).astype(np.int64)
    return hashlib.sha256(atoms.numbers.tobytes() + rounded.tobytes()).digest()[:12]
