"""The topology beside a trajectory: a PDB file with elements, residues and cell, atoms in the order of the
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import chemical_symbols

from omnicalc.bonds import bonds, molecule_numbers
from omnicalc.md.box import standard_box
from omnicalc.md.files import replace_file

if TYPE_CHECKING:
    from ase import Atoms


class _Names(NamedTuple):
    """What PDB says of each atom beside its element and place; lists of one entry per atom."""

    atoms: list[str]
    residues: list[str]
    numbers: list[int]  # of residues
    chains: list[str]
    record: str  # ATOM or HETATM


def write_topology(path: Path | str, atoms: Atoms) -> None:
    """Write ``atoms`` as PDB, in their order, positions turned like those of the trajectory (see
    :mod:`omnicalc.md.box`).

    Atoms, residues and chains have the names of the PDB or GRO file that the structure came from (as ASE's arrays
    ``atomtypes``, ``residuenames``, ``residuenumbers`` and ours ``chainids`` keep them). Without any, residues are
    molecules, recognised by distance: water is HOH (O, H1, H2), a lone atom such as an ion has its element's name (NA,
    CL), everything else is MOL with numbered atom names. The atoms of one molecule keep its residue number even when
    they are not neighbours in the file. PDB columns are narrow: atom numbers start again at 0 after 99,999 and residue
    numbers after 9,999, which readers undo or ignore as they go by order; coordinates too wide for three decimals are
    given with fewer.
    """
    box = standard_box(atoms.cell.array, atoms.pbc)
    positions = atoms.positions if box is None else box.orient(atoms.positions)
    lines = []
    if box is not None:
        a, b, c, alpha, beta, gamma = box.dimensions
        lines.append(f"CRYST1{a:9.3f}{b:9.3f}{c:9.3f}{alpha:7.2f}{beta:7.2f}{gamma:7.2f} P 1           1")
    given = _of_the_file(atoms) or _of_molecules(atoms)
    for k, (x, y, z) in enumerate(positions.tolist()):
        symbol, name = chemical_symbols[atoms.numbers[k]], given.atoms[k]
        # element symbols are right-justified in columns 13-14, so one-letter elements leave the
        # first of the four columns free
        name = (name if len(symbol) == 2 or len(name) == 4 else f" {name}").ljust(4)
        lines.append(
            f"{given.record:6s}{(k + 1) % 100000:5d} {name} {given.residues[k]:>3s}".ljust(21)
            + f"{given.chains[k]}{_wrapped(given.numbers[k]):4d}    "
            f"{_fit(x)}{_fit(y)}{_fit(z)}  1.00  0.00          {symbol.upper():>2s}  "
        )
    replace_file(Path(path), "\n".join([*lines, "END", ""]).encode("ascii"))


def _wrapped(number: int) -> int:
    """A residue number that four columns hold; a few negative ones are usual in front of a chain."""
    return number if -999 <= number < 0 else number % 10000


def _fit(value: float, width: int = 8) -> str:
    """``value`` in exactly ``width`` columns, with three decimals or as many as fit."""
    return next(
        (text for d in (3, 2, 1, 0) if len(text := f"{value:{width}.{d}f}") <= width),
        f"{value:{width}.1e}"[:width],
    )


def _of_the_file(atoms: Atoms) -> _Names | None:
    """The names that came with the structure; None without any, and where they are none: too long for PDB, or twice in
    one residue, as in copies of a molecule or in what ASE writes of its own.
    """
    columns = [atoms.arrays.get(key) for key in ("atomtypes", "residuenames", "residuenumbers")]
    if any(column is None or column.shape != (len(atoms),) for column in columns):
        return None
    names, residues, numbers = (column.tolist() for column in columns)
    usable = (isinstance(name, str) and name.isascii() and 0 < len(name) <= 4 for name in [*names, *residues])
    if columns[2].dtype.kind != "i" or not all(usable):
        return None
    chains = atoms.arrays.get("chainids", np.full(len(atoms), " ")).astype("U1").tolist()
    keys = list(zip(residues, numbers, chains, strict=True))
    begins = [k == 0 or keys[k] != keys[k - 1] for k in range(len(keys))]
    if len(set(zip(np.cumsum(begins).tolist(), names, strict=True))) < len(names):
        return None
    return _Names(names, residues, numbers, chains, "ATOM")


def _of_molecules(atoms: Atoms) -> _Names:
    """Names by molecules, numbered in the order of first atoms."""
    i, j, _ = bonds(atoms)
    molecule = molecule_numbers(len(atoms), i, j)
    order = np.argsort(molecule, kind="stable")
    n_bonds = np.bincount(i, minlength=len(atoms))
    names, residues = [""] * len(atoms), [""] * len(atoms)
    for members in np.split(order, np.flatnonzero(np.diff(molecule[order])) + 1):
        numbers = atoms.numbers[members].tolist()
        residue = _residue_name(numbers, n_bonds[members].tolist())
        for k, name in zip(members.tolist(), _atom_names(numbers, residue), strict=True):
            names[k], residues[k] = name, residue
    return _Names(names, residues, (molecule + 1).tolist(), [" "] * len(atoms), "HETATM")


def _residue_name(numbers: list[int], bonds: list[int]) -> str:
    if len(numbers) == 1:
        return chemical_symbols[numbers[0]].upper()
    if sorted(numbers) == [1, 1, 8] and bonds[numbers.index(8)] == 2 and sum(bonds) == 4:
        return "HOH"
    return "MOL"


def _atom_names(numbers: list[int], residue: str) -> list[str]:
    """O, H1, H2 for water, the element for a lone atom, else element and running number, the number dropped
    where it does not fit.
    """
    symbols = [chemical_symbols[z].upper() for z in numbers]
    if len(symbols) == 1:
        return symbols
    seen: dict[str, int] = {}
    names = []
    for symbol in symbols:
        seen[symbol] = seen.get(symbol, 0) + 1
        name = "O" if residue == "HOH" and symbol == "O" else f"{symbol}{seen[symbol]}"
        names.append(name if len(name) <= 4 else symbol)
    return names
