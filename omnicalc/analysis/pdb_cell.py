"""The cell of a PDB file that names it once, above its first model, where MDAnalysis does not look for it."""

from pathlib import Path

import numpy as np

from omnicalc.errors import InputError

_FIELDS = ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))
_PLACEHOLDER = (1.0, 1.0, 1.0, 90.0, 90.0, 90.0)  # what the format asks for where there is no cell


def cell_above_models(path: Path | str) -> np.ndarray | None:
    """The box (6,) of the CRYST1 record before the first atom, Å and degrees; None without one.

    Plain or compressed files. Raises InputError for a record that cannot be read.
    """
    if not Path(path).is_file():
        return None  # what MDAnalysis was given in memory
    from MDAnalysis.lib.util import anyopen

    with anyopen(str(path), "rt") as file:
        for line in file:
            if line.startswith(("ATOM", "HETATM")):
                return None
            if line.startswith("CRYST1"):
                try:
                    box = np.array([float(line[first:end]) for first, end in _FIELDS])
                except ValueError:
                    raise InputError(f"{path}: {line.strip()!r} is no CRYST1 record; mend it or leave it out") from None
                return None if np.allclose(box, _PLACEHOLDER) else box
    return None
