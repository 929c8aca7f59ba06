"""The name of an entry: a hash of geometry, charge, spin and method. Equal keys, equal labels."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.labels.electrons import charge_and_unpaired

if TYPE_CHECKING:
    from ase import Atoms

_DIGITS = 8  # decimals of positions in Å, as extended XYZ keeps them


def label_key(atoms: Atoms, method: str) -> str:
    """16 hexadecimal digits, the same before and after a round trip through an extended XYZ file."""
    charge, unpaired = charge_and_unpaired(atoms)
    rounded = np.rint(atoms.positions * 10**_DIGITS).astype("<i8")
    text = f"{method}|{charge}|{unpaired}|".encode()
    digest = hashlib.sha256(text + atoms.numbers.astype("<i4").tobytes() + rounded.tobytes())
    return digest.hexdigest()[:16]
