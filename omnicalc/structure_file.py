"""Structures from files: anything ASE reads, or one clear error before anything else is done."""

from __future__ import annotations

import difflib
import gzip
import math
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.database_file import read_database
from omnicalc.errors import InputError
from omnicalc.residue_files import read_gro, read_pdb
from omnicalc.sdf_file import read_sdf

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

Cell = str | float | Sequence[float]

_FORMATS = ".xyz, .extxyz, .pdb, .cif, .gro, .sdf, .traj, POSCAR and others (`ase info --formats` lists all)"
_WITHOUT_ELEMENTS = (".dcd", ".xtc", ".trr")
_DENSEST = 1.0  # atoms per Å^3, several times those of diamond: more means a cell that is only a placeholder


def read_structure(path: str | Path, index: int | str = -1, cell: Cell | None = None, no_pbc: bool = False) -> Atoms:
    """One structure of a file, by default its last.

    Args:
        path: any file that ASE reads.
        index: which frame.
        cell: Å; makes the structure periodic along all axes, in place of the file's own cell. A cube's edge,
            three edges, three edges and three angles in degrees, or nine numbers (rows are vectors); as text,
            separated by commas or spaces.
        no_pbc: drop the file's cell and periodic axes.

    Raises:
        InputError: no such file, nothing ASE can read, no such frame, no atoms, a position that is not
            finite, a periodic axis without a cell vector, a bad ``cell``.
    """
    frames = read_structures(path, index, cell, no_pbc)
    if len(frames) != 1:
        raise InputError(f"{path}: index {index} means {len(frames)} structures; one is needed, as in -1")
    return frames[0]


def read_structures(
    path: str | Path, index: int | str = ":", cell: Cell | None = None, no_pbc: bool = False
) -> list[Atoms]:
    """Structures of a file, by default all; ``index`` as in Python (``0``, ``-1``, ``"10:20:2"``).

    Arguments and errors as for :func:`read_structure`.
    """
    if cell is not None and no_pbc:
        raise InputError(
            "a cell and no_pbc are both given; a structure without periodic axes needs no cell: leave one out (--cell, "
            "--no-pbc)"
        )
    matrix = None if cell is None else parse_cell(cell)
    frames = _read(_existing(path), _index(index))
    if not frames:
        raise InputError(f"empty structure: {path} holds no frame at index {index}")
    for k, atoms in enumerate(frames):
        if matrix is not None:
            atoms.set_cell(matrix)
            atoms.pbc = True
        elif no_pbc:
            atoms.set_cell(None)
            atoms.pbc = False
        where = f"{path}, frame {k} of {len(frames)}" if len(frames) > 1 else f"{path}"
        _check(atoms, where)
    return frames


def parse_cell(cell: Cell) -> np.ndarray:
    """Cell matrix (3, 3), rows in Å, from 1, 3, 6 or 9 numbers. Raises :class:`InputError` for others."""
    import numpy as np

    words = cell.replace(",", " ").split() if isinstance(cell, str) else np.ravel(cell).tolist()
    try:
        numbers = [float(word) for word in words]
    except (TypeError, ValueError):
        numbers = []
    count = len(numbers)
    if count not in (1, 3, 6, 9) or not all(math.isfinite(x) for x in numbers):
        raise InputError(f"cell {cell!r} given; {_CELL_FORMS}")
    if count < 9 and (min(numbers) <= 0 or max(numbers[3:], default=0) >= 180):
        raise InputError(f"cell {cell!r} given; lengths above 0 Å and angles between 0 and 180° are needed")
    if count == 6:
        matrix = _from_lengths_and_angles(numbers)
    else:
        matrix = np.reshape(numbers, (3, 3)) if count == 9 else np.diag(np.broadcast_to(numbers, 3))
    lengths = np.linalg.norm(matrix, axis=1)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) <= 1e-9 * lengths.prod():
        raise InputError(f"cell {cell!r} has no volume; {_CELL_FORMS}")
    return matrix


_CELL_FORMS = "a cube's edge, a,b,c or a,b,c,alpha,beta,gamma or nine numbers are needed, in Å and degrees"


def _from_lengths_and_angles(numbers: list[float]) -> np.ndarray:
    """The matrix (3, 3) of a, b, c, alpha, beta, gamma; NaN when the angles cannot meet in a corner."""
    import numpy as np
    from ase.geometry import cellpar_to_cell

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return cellpar_to_cell(numbers)
    except (AssertionError, ValueError, ZeroDivisionError):
        return np.full((3, 3), math.nan)


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder; a structure file is needed: {_FORMATS}")
    if not path.exists():
        raise InputError(f"{path}: no such file{_similar(path)}")
    if path.stat().st_size == 0:
        raise InputError(f"empty structure: {path} is an empty file")
    return path


def _similar(path: Path) -> str:
    """A guess at what was meant."""
    if not path.parent.is_dir():
        return f", nor a folder {path.parent}"
    names = [p.name for p in path.parent.iterdir() if p.is_file()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(str(path.with_name(name)) for name in close)}?" if close else ""


def _index(index: int | str) -> slice | int:
    try:
        parts = [int(part) if part.strip() else None for part in str(index).split(":")]
    except ValueError:
        parts = []
    if len(parts) == 1 and parts[0] is not None:
        return parts[0]
    if not 2 <= len(parts) <= 3 or parts[2:] == [0]:
        raise InputError(f"index '{index}' given; a frame as in 0 or -1, or a range as in 10:20:2 is needed")
    return slice(*parts)


def _read(path: Path, index: slice | int) -> list[Atoms]:
    if isinstance(index, slice):
        return _frames(path, index)
    if index == -1:  # some readers find the last frame without reading all
        return _frames(path, index)
    frames = _frames(path, slice(None))
    if not -len(frames) <= index < len(frames):
        raise InputError(f"{path} holds {len(frames)} frames; index {index} is not among them")
    return [frames[index]]


def _frames(path: Path, index: slice | int) -> list[Atoms]:
    from ase.io import read
    from ase.io.formats import UnknownFileTypeError, filetype

    if path.suffix.lower() in _WITHOUT_ELEMENTS:
        raise InputError(
            f"{path}: a {path.suffix[1:].upper()} file has positions and no elements. A run with --save velocities "
            "writes frames.xyz too, which has both; of other trajectories make extended XYZ: MDAnalysis.Universe("
            f"'topology.pdb', '{path.name}') has elements and positions for ase.Atoms and ase.io.write"
        )
    own = {"proteindatabank": read_pdb, "gromacs": read_gro, "sdf": read_sdf, "mol": read_sdf}
    own |= {"db": read_database, "json": read_database}
    try:
        with _unpacked(path) as plain:
            kind = filetype(str(plain))
            frames = own[kind](plain)[index] if kind in own else read(plain, index, do_not_split_by_at_sign=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnknownFileTypeError:
        raise InputError(f"{path}: not a file that ASE can read; readable are {_FORMATS}") from None
    except (IndexError, StopIteration):
        frames = []
    except Exception as error:  # readers raise whatever their parsing runs into
        raise InputError(f"{path}: ASE cannot read it: {_said(error)}. Readable are {_FORMATS}") from None
    if frames == [] and index in (-1, slice(None)):
        raise InputError(
            f"empty structure: no frame was found in {path}, read as ASE's format {kind}; if it is of another one "
            f"(mmCIF, a LAMMPS data file), convert it to PDB or extended XYZ. Readable are {_FORMATS}"
        )
    return frames if isinstance(frames, list) else [frames]


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary copy of a gzip-compressed one.

    Readers jump from frame to frame, and every jump in a compressed file starts from its beginning.
    """
    if path.suffix != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        with gzip.open(path) as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file)
        yield plain


def _said(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, KeyError):
        return f"unknown symbol or key {error}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200].rstrip(".")


def _check(atoms: Atoms, where: str) -> None:
    from omnicalc.structure_checks import check_distances, check_occupancy, check_structure

    try:
        check_structure(atoms)
        check_occupancy(atoms)
        _check_density(atoms)
        check_distances(atoms)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check_density(atoms: Atoms) -> None:
    if atoms.pbc.all() and len(atoms) > _DENSEST * atoms.get_volume():
        raise InputError(
            f"{len(atoms)} atoms in a periodic cell of {atoms.get_volume():.3g} Å^3, which only "
            "stands in for a missing one; give the cell in Å with --cell, or leave it out with --no-pbc"
        )
