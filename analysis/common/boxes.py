"""Boxes of water with ions and solutes, built from the equilibrated 64 waters of examples/water.xyz, repeated.

A repeated periodic box has no seams, so nothing overlaps but what is put into it. Atoms carry the arrays
``residuenames``, ``residuenumbers``, ``atomtypes`` (names) and ``chains``, from which a force field finds its types.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from scipy.spatial import cKDTree

from omnicalc.errors import InputError

WATERS = Path(__file__).resolve().parents[2] / "examples" / "water.xyz"
STRUCTURES = Path(__file__).resolve().parents[1] / "structures"
APART = 5.0  # Å, between ions as they are placed
GAP = 2.7  # Å, from a heavy atom of a solute to the oxygen of a water that stays; 2.0 from its hydrogens
PER_LITRE = 6.02214076e-4  # particles/Å³ at 1 mol/L


def label(atoms: Atoms, names: list[str], residue: str, number: int, chain: int) -> Atoms:
    """The same atoms as one residue."""
    n = len(atoms)
    atoms.set_array("atomtypes", np.array(names, dtype="<U5"))
    atoms.set_array("residuenames", np.full(n, residue, dtype="<U5"))
    atoms.set_array("residuenumbers", np.full(n, number))
    atoms.set_array("chains", np.full(n, chain))
    return atoms


def water_box(tiles: tuple[int, int, int]) -> Atoms:
    """64 waters for each tile of 12.44 Å, as residues HOH of atoms O, H1, H2."""
    atoms = read(WATERS).repeat(tiles)
    atoms.set_pbc(True)
    if not (atoms.numbers.reshape(-1, 3) == (8, 1, 1)).all():
        raise InputError(f"{WATERS} is not a box of waters in the order O H H")
    n = len(atoms) // 3
    label(atoms, ["O", "H1", "H2"] * n, "HOH", 0, 9)
    atoms.arrays["residuenumbers"] = 1 + np.arange(len(atoms)) // 3
    return atoms


def pairs_for(molar: float, atoms: Atoms) -> int:
    """Ion pairs that make a box ``molar`` mol/L, one at least; the volume stays while waters give way to ions."""
    return max(1, round(molar * PER_LITRE * atoms.get_volume()))


def add_ions(atoms: Atoms, ions: dict[str, int], rng: np.random.Generator) -> Atoms:
    """Replace waters by ions, at random, 5 Å or more from each other and from every atom that is no water.

    Raises InputError where there is no such place left.
    """
    for element, count in ions.items():
        for _ in range(count):
            oxygens = np.flatnonzero((atoms.arrays["residuenames"] == "HOH") & (atoms.numbers == 8))
            others = np.flatnonzero(atoms.arrays["residuenames"] != "HOH")
            free = oxygens
            if len(others):
                free = oxygens[nearest(atoms.positions[oxygens], atoms.positions[others], atoms.cell.lengths()) > APART]
            if not len(free):
                raise InputError(f"no water is left {APART} Å from ions and solute to make room for {element}; take a "
                                 f"larger box or fewer ions")  # fmt: skip
            chosen = int(rng.choice(free))
            ion = label(Atoms(element, [atoms.positions[chosen]]), [element.upper()], element.upper(), 1, 8)
            keep = np.ones(len(atoms), dtype=bool)
            keep[chosen : chosen + 3] = False
            solute = keep & ~np.isin(atoms.arrays["residuenames"], ("HOH", "NA", "CL"))
            placed = keep & np.isin(atoms.arrays["residuenames"], ("NA", "CL"))
            waters = keep & (atoms.arrays["residuenames"] == "HOH")
            whole = atoms[solute] + atoms[placed] + ion + atoms[waters]
            whole.info = dict(atoms.info)
            atoms = whole
    return numbered(atoms)


def solvate(solute: Atoms, padding: float) -> Atoms:
    """The solute in the middle of a box of water with ``padding`` Å or more to every face; solute first."""
    edge = float(read(WATERS).cell.lengths()[0])
    extent = np.ptp(solute.positions, axis=0)
    tiles = tuple(int(n) for n in np.maximum(1, np.ceil((extent + 2 * padding) / edge)))
    waters = water_box(tiles)
    solute = solute.copy()
    solute.set_cell(waters.cell)
    solute.set_pbc(True)
    solute.positions += waters.cell.lengths() / 2 - (solute.positions.max(axis=0) + solute.positions.min(axis=0)) / 2
    oxygens, clear = waters.positions[::3], np.ones(len(waters) // 3, dtype=bool)
    for atoms, reach in ((solute.numbers == 1, GAP - 0.7), (solute.numbers != 1, GAP)):
        if atoms.any():
            clear &= nearest(oxygens, solute.positions[atoms], waters.cell.lengths()) > reach
    whole = solute + waters[np.repeat(clear, 3)]
    whole.info = dict(solute.info)
    return numbered(whole)


def nearest(a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Distance (n,) of each place a (n, 3) from the nearest of b (m, 3), images in an upright box included, Å."""
    inside = [x % edges % edges for x in (a, b)]  # twice: the rest of a tiny negative number is the edge itself
    return cKDTree(inside[1], boxsize=edges).query(inside[0])[0]


def numbered(atoms: Atoms) -> Atoms:
    """Residue numbers that run on, so that neighbouring residues differ."""
    arrays = atoms.arrays
    new = np.ones(len(atoms), dtype=bool)
    same = (arrays["residuenumbers"][1:] == arrays["residuenumbers"][:-1]) & (
        arrays["residuenames"][1:] == arrays["residuenames"][:-1]
    )
    new[1:] = ~same | np.isin(arrays["residuenames"][1:], ("NA", "CL", "MG"))
    arrays["residuenumbers"] = np.cumsum(new)
    return atoms
