"""PDB and GRO files as ASE reads them, less its errors: empty last frames, atoms taken for other elements, names that
no file of columns could hold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


def read_pdb(path: Path) -> list[Atoms]:
    """All models; ``info["formal_charges"]`` is what those of its atoms add up to, where that is not zero, and
    ``arrays["chainids"]`` has the chains, where all atoms have one. Without a column of elements, names of atoms and
    residues give them.
    """
    from ase.io import read

    frames = read(path, ":", format="proteindatabank")
    while len(frames) > 1 and not len(frames[-1]):  # ASE takes END after ENDMDL for the end of another model
        frames.pop()
    lines = _first_model(path)
    total = sum(_charge(line[78:80]) for line in lines)
    chains = [line[21:22] for line in lines]
    nameless = bool(lines) and not any(map(str.isalpha, "".join(line[76:78] for line in lines)))
    for atoms in frames:
        if total:
            atoms.info["formal_charges"] = total
        if nameless:
            _name_elements(atoms, _aligned(lines))
        if len(chains) == len(atoms):
            atoms.set_array("chainids", chains, str)
        _drop_blank_names(atoms)
    return frames


def read_gro(path: Path) -> list[Atoms]:
    """The structure, with elements from names of atoms and residues: NA of the residue NA is sodium.

    Raises :class:`InputError` for a name that is no element, as of a virtual site.
    """
    from ase.io import read

    frames = read(path, ":", format="gromacs")
    for atoms in frames:
        velocities = atoms.get_velocities() if atoms.has("momenta") else None
        _name_elements(atoms)
        if velocities is not None:  # ASE has made momenta of them, by the masses of its elements
            atoms.set_velocities(velocities)
        _drop_blank_names(atoms)
    return frames


def _drop_blank_names(atoms: Atoms) -> None:
    """Names of which some are blank: in the columns of extended XYZ they would shift what stands behind them."""
    for kind in ("atomtypes", "residuenames", "chainids"):
        if kind in atoms.arrays and any(len(name.split()) != 1 for name in atoms.arrays[kind].tolist()):
            del atoms.arrays[kind]


def _first_model(path: Path) -> list[str]:
    """Lines of its atoms."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    end = next((k for k, line in enumerate(lines) if line.startswith("END")), len(lines))
    return [line for line in lines[:end] if line.startswith(("ATOM", "HETATM"))]


def _charge(field: str) -> int:
    """Of columns 79 and 80, as in 2+ or 1-."""
    return int(field[1] + field[0]) if re.fullmatch(r"\d[+-]", field) else 0


def _aligned(lines: list[str]) -> list[str]:
    """Of each atom, the element of two letters that its name has by the rules of PDB, which put them into columns 13
    and 14; else nothing. A file with elements of one letter in column 13 (``C1``) does not go by the rules, and names
    of ions in force fields (``POT``) never do.
    """
    from omnicalc.analysis.topology import ION_NAMES

    names = [line[12:16] for line in lines]
    if any(name[:1].isalpha() and not name[1:2].isalpha() and name[3:] == " " for name in names):
        return [""] * len(names)
    by_rule = (name[:2].isalpha() and name[3:] == " " and name.strip() not in ION_NAMES for name in names)
    return [name[:2] if taken else "" for name, taken in zip(names, by_rule, strict=True)]


def _name_elements(atoms: Atoms, known: list[str] | None = None) -> None:
    """Elements by names of atoms and residues; ``known``: of each atom an element that goes before, or nothing."""
    from ase.data import atomic_numbers

    from omnicalc.analysis.topology import UNKNOWN, element_of

    known = known if known is not None and len(known) == len(atoms) else [""] * len(atoms)
    for k, (name, residue) in enumerate(zip(atoms.arrays["atomtypes"], atoms.arrays["residuenames"], strict=True)):
        given = name if name[1:].islower() else known[k]  # Cu, as ASE writes it; force fields have capitals only
        element = element_of(given, name, residue, 0.0)
        if element == UNKNOWN:
            raise InputError(
                f"atom {k} ({name} of {residue}) is no element; leave virtual sites out, as no model knows them"
            )
        atoms.numbers[k] = atomic_numbers[element]
