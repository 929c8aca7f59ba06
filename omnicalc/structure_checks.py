"""What every structure must satisfy before anything is computed with it. On ``ase.Atoms``, without torch.

Each check raises :class:`InputError` naming the atom or axis and the remedy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE = 0.1  # Å; no two nuclei of a real structure come this close, copies of an atom do
MAX_NUMBER = 118
_FLAT_CELL = 1e-9  # volume of the periodic cell vectors over their lengths' product; less is no volume at all
_CELL_REMEDY = "set atoms.cell or atoms.pbc, or on the command line --cell / --no-pbc"


def check_structure(atoms: Atoms) -> None:
    """All checks but that of distances, which needs a neighbour search."""
    check_not_empty(atoms)
    check_numbers(atoms)
    check_positions(atoms)
    check_cell(atoms)


def check_not_empty(atoms: Atoms) -> None:
    """At least one atom."""
    if len(atoms) == 0:
        raise InputError("empty structure: it has no atoms")


def check_numbers(atoms: Atoms) -> None:
    """Atomic numbers of elements that exist."""
    wrong = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > MAX_NUMBER))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"atom {k} has atomic number {int(atoms.numbers[k])}; elements 1 (H) to {MAX_NUMBER} (Og) are known"
        )


def check_positions(atoms: Atoms) -> None:
    """Finite positions."""
    wrong = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"atom {k} ({atoms.symbols[k]}) has the position {atoms.positions[k].tolist()} ({wrong.size} of "
            f"{len(atoms)} atoms have one that is not finite); give every atom three finite numbers in Å"
        )


def check_cell(atoms: Atoms) -> None:
    """A finite cell, with linearly independent vectors along the periodic axes."""
    cell, pbc = np.asarray(atoms.cell.array), np.asarray(atoms.pbc)
    if not np.isfinite(cell).all():
        raise InputError(f"the cell {cell.tolist()} holds numbers that are not finite; {_CELL_REMEDY}")
    lengths = np.linalg.norm(cell, axis=1)
    for axis in np.flatnonzero(pbc):
        if lengths[axis] == 0:
            raise InputError(f"periodic along {'abc'[axis]} but its cell vector is zero; {_CELL_REMEDY}")
    unit = cell[pbc] / lengths[pbc, None]
    if pbc.sum() > 1 and math.sqrt(max(np.linalg.det(unit @ unit.T), 0.0)) < _FLAT_CELL:
        axes = " and ".join("abc"[k] for k in np.flatnonzero(pbc))
        raise InputError(f"periodic along {axes} but these cell vectors are linearly dependent; {_CELL_REMEDY}")


def check_occupancy(atoms: Atoms) -> None:
    """Every atom there, not one of several places of it: by the occupancies that PDB and CIF files have."""
    partial = []
    of_atoms, of_sites = atoms.arrays.get("occupancy"), atoms.info.get("occupancy")  # PDB; CIF, by kind of site
    if of_atoms is not None and of_atoms.shape == (len(atoms),) and of_atoms.dtype.kind in "fO":
        given = np.array([x if isinstance(x, float) else 1.0 for x in of_atoms.tolist()])
        partial = [f"atom {k} ({atoms.symbols[k]})" for k in np.flatnonzero((given > 0) & (given < 1))]
    elif isinstance(of_sites, dict):
        sites = [site for site in of_sites.values() if isinstance(site, dict) and site]
        partial = [
            f"a site of {'/'.join(s)}" for s in sites if any(isinstance(x, int | float) and x < 1 for x in s.values())
        ]
    if partial:
        raise InputError(
            f"{partial[0]} is occupied in part{f', and {len(partial) - 1} more' * (len(partial) > 1)}: the file holds "
            "several places of the same atoms, or atoms that are not always there; keep one place of each, and set "
            "the occupancies of those to 1"
        )


def check_distances(atoms: Atoms) -> None:
    """No two atoms, nor an atom and a periodic image, on top of each other."""
    from omnicalc.pair_search import MOLECULE, search_molecules, search_pairs

    positions, cell = np.array(atoms.positions, dtype=np.float64), np.array(atoms.cell.array)
    if len(atoms) <= MOLECULE and not atoms.pbc.any():
        i, j, shift = search_molecules(positions, np.array([len(atoms)]), MIN_DISTANCE)
    else:
        i, j, shift = search_pairs(positions, cell, np.asarray(atoms.pbc), MIN_DISTANCE)
    if not i.size:
        return
    distance = np.linalg.norm(positions[i] - positions[j] - shift @ cell, axis=1)
    k = int(distance.argmin())
    a, b = sorted((int(i[k]), int(j[k])))
    image = " (a periodic image)" if shift[k].any() else ""
    raise InputError(
        f"atom {a} ({atoms.symbols[a]}) and atom {b} ({atoms.symbols[b]}){image} are {distance[k]:.3g} Å "
        f"apart, closer than {MIN_DISTANCE} Å: two atoms on top of each other; remove the copy, or check the "
        "cell and the periodic axes"
    )
