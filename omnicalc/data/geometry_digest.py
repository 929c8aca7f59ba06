"""Which structures are the same geometry, to within what files keep."""

import hashlib

import numpy as np
from ase import Atoms

_SAME = 1e-4  # Å, to which coordinates are rounded: copies that differ by far less are nearly always one geometry
_OFF = 0.3819660113  # of a step: decimals of a file end on the borders of no step


def geometry_digest(atoms: Atoms) -> bytes:
    """The same for structures whose elements, positions and cell are the same when rounded; 12 bytes. Files keep it."""
    rounded = np.round(np.concatenate([atoms.positions, atoms.cell.array]) / _SAME)
    return _digest(atoms, rounded)


def placed_anywhere_digest(atoms: Atoms) -> bytes:
    """As :func:`geometry_digest`, but also the same for a molecule that was shifted (not turned) or put into a box that
    is not periodic, and another for another charge; not the same bytes. A periodic structure is taken as it stands.
    """
    origin = np.zeros(3) if atoms.pbc.any() else atoms.positions[0]
    cell = atoms.cell.array * atoms.pbc[:, None]
    steps = np.floor(np.concatenate([atoms.positions - origin, cell]) / _SAME + _OFF)
    charge = atoms.info.get("charge")
    known = isinstance(charge, int | float | np.number) and np.isfinite(
        charge
    )  # what is no number is refused elsewhere
    return _digest(atoms, np.append(steps, round(charge) if known else 0))


def _digest(atoms: Atoms, steps: np.ndarray) -> bytes:
    return hashlib.sha256(atoms.numbers.tobytes() + steps.astype(np.int64).tobytes()).digest()[:12]
