"""Raw QM9 (Ramakrishnan et al., Sci. Data 1, 140022 (2014)): one small text file per molecule, in a folder or a tar.

A file holds the number of atoms; "gdb", an index and fifteen properties; one line per atom (element, position in Å,
Mulliken charge); frequencies, SMILES and InChI. Exponents may be written 1.2*^-5.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units

from omnicalc.errors import InputError

_EV, _A3 = units.Hartree, units.Bohr**3
PROPERTIES = {  # name: (column after the index, factor to the unit, unit)
    "rotational_a": (0, 1.0, "GHz"),
    "rotational_b": (1, 1.0, "GHz"),
    "rotational_c": (2, 1.0, "GHz"),
    "mu": (3, 1.0, "D"),
    "alpha": (4, _A3, "Å^3"),
    "homo": (5, _EV, "eV"),
    "lumo": (6, _EV, "eV"),
    "gap": (7, _EV, "eV"),
    "r2": (8, units.Bohr**2, "Å^2"),
    "zpve": (9, _EV, "eV"),
    "u0": (10, _EV, "eV"),
    "u298": (11, _EV, "eV"),
    "h298": (12, _EV, "eV"),
    "g298": (13, _EV, "eV"),
    "cv": (14, 1.0, "cal/(mol K)"),
}


def read_qm9(path: Path | str, *, exclude: Path | str | None = None) -> Iterator[Atoms]:
    """Molecules in the order of their index, with properties in ``info`` under the names of :data:`PROPERTIES`.

    ``exclude``: the release's list of 3054 molecules that failed its consistency check (``uncharacterized.txt``).
    Raises :class:`InputError` for a path without such files, or a file that is none.
    """
    left_out = set() if exclude is None else _indices(Path(exclude))
    for name, text in _files(Path(path)):
        atoms = _molecule(text, name)
        if atoms.info["qm9_index"] not in left_out:
            yield atoms


def _files(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        files = sorted(path.rglob("*.xyz"))
        if not files:
            raise InputError(f"{path}: no .xyz files in this folder; the unpacked files of QM9 are needed")
        for file in files:
            yield str(file), _text(file.read_bytes(), str(file))
        return
    if not path.is_file():
        raise InputError(f"{path}: no such file; a folder or a tar file of QM9's .xyz files is needed")
    try:
        with tarfile.open(path) as tar:
            members = sorted((m for m in tar.getmembers() if m.name.endswith(".xyz")), key=lambda m: m.name)
            for member in members:
                name = f"{path}:{member.name}"
                yield name, _text(tar.extractfile(member).read(), name)
            if not members:
                raise InputError(f"{path}: no .xyz files in this tar file; dsgdb9nsd.xyz.tar.bz2 of QM9 is needed")
    except tarfile.TarError as error:
        raise InputError(f"{path}: not a tar file ({error}); dsgdb9nsd.xyz.tar.bz2 of QM9 is") from None


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a molecule of QM9 (it is no text)") from None


def _molecule(text: str, name: str) -> Atoms:
    lines = text.replace("*^", "e").splitlines()
    try:
        n, head = int(lines[0]), lines[1].split()
        if head[0] != "gdb" or len(head) != 17:
            raise ValueError("the second line is not 'gdb', an index and fifteen numbers")
        rows = [line.split() for line in lines[2 : 2 + n]]
        values = [float(x) for x in head[2:]]
        atoms = Atoms([row[0] for row in rows], np.array([row[1:4] for row in rows], dtype=float))
        charges = [float(row[4]) for row in rows]
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{name}: not a molecule of QM9 ({error})") from None
    atoms.arrays["mulliken"] = np.array(charges)
    atoms.info = {key: values[column] * factor for key, (column, factor, _) in PROPERTIES.items()}
    atoms.info |= {"qm9_index": int(head[1]), "charge": 0, "molecule": f"gdb9-{int(head[1]):06d}"}
    if len(lines) > 3 + n:
        atoms.info["smiles"] = lines[3 + n].split()[0]
    return atoms


def _indices(path: Path) -> set[int]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; uncharacterized.txt of QM9 is needed")
    # the last line counts the compounds
    found = re.findall(r"^\s*(\d+)\s+(?!compounds)\S", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {int(k) for k in found}
