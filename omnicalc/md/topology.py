"""The topology beside a trajectory: a PDB file with elements, residues and cell, atoms in the order of the
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from omnicalc.bonds import bonds, molecule_numbers
from omnicalc.md.box import standard_box
from omnicalc.md.files import replace_file

if TYPE_CHECKING:
    from ase import Atoms


def write_topology(path: Path | str, atoms: Atoms) -> None:
    """Write ``atoms`` as PDB, in their order, positions turned like those of the trajectory (see
    :mod:`omnicalc.md.box`).

    Residues are molecules, recognised by distance: water is HOH (O, H1, H2), a lone atom such as an ion has
    its element's name (NA, CL), everything else is MOL with numbered atom names. The atoms of one molecule
    keep its residue number even when they are not neighbours in the file. PDB columns are narrow: atom
    numbers start again at 0 after 99,999 and residue numbers after 9,999, which readers undo or ignore as
    they go by order; coordinates too wide for three decimals are given with fewer.
    """
    box = standard_box(atoms.cell.array, atoms.pbc)
    positions = atoms.positions if box is None else box.orient(atoms.positions)
    lines = []
    if box is not None:
        a, b, c, alpha, beta, gamma = box.dimensions
        lines.append(f"CRYST1{a:9.3f}{b:9.3f}{c:9.3f}{alpha:7.2f}{beta:7.2f}{gamma:7.2f} P 1           1")
    residue_of, residue_names, atom_names = _residues(atoms)
    for k, (x, y, z) in enumerate(positions.tolist()):
        symbol = chemical_symbols[atoms.numbers[k]]
        # element symbols are right-justified in columns 13-14, so one-letter elements leave the
        # first of the four columns free
        name = (atom_names[k] if len(symbol) == 2 or len(atom_names[k]) == 4 else f" {atom_names[k]}").ljust(4)
        residue = residue_of[k]
        lines.append(
            f"HETATM{(k + 1) % 100000:5d} {name} {residue_names[residue]:>3s}  {(residue + 1) % 10000:4d}    "
            f"{_fit(x)}{_fit(y)}{_fit(z)}  1.00  0.00          {symbol.upper():>2s}  "
        )
    replace_file(Path(path), "\n".join([*lines, "END", ""]).encode("ascii"))


def _fit(value: float, width: int = 8) -> str:
    """``value`` in exactly ``width`` columns, with three decimals or as many as fit."""
    return next(
        (text for d in (3, 2, 1, 0) if len(text := f"{value:{width}.{d}f}") <= width),
        f"{value:{width}.1e}"[:width],
    )


def _residues(atoms: Atoms) -> tuple[np.ndarray, list[str], list[str]]:
    """Residue of each atom (N,), in the order of first atoms; name of each residue; name of each atom."""
    i, j, _ = bonds(atoms)
    residue_of = molecule_numbers(len(atoms), i, j)
    order = np.argsort(residue_of, kind="stable")
    n_bonds = np.bincount(i, minlength=len(atoms))
    names, atom_names = [], [""] * len(atoms)
    for members in np.split(order, np.flatnonzero(np.diff(residue_of[order])) + 1):
        numbers = atoms.numbers[members].tolist()
        names.append(_residue_name(numbers, n_bonds[members].tolist()))
        for k, name in zip(members.tolist(), _atom_names(numbers, names[-1]), strict=True):
            atom_names[k] = name
    return residue_of, names, atom_names


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
