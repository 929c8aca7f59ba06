"""Where a decoder starts: one frame with velocities, or two frames whose spacing in time is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_COARSE = 3.0  # fs between two frames beyond which their difference is no velocity of a hydrogen


def read_start(path: Path, index: int = -1, spacing_fs: float | None = None) -> Atoms:
    """The start in a file: any structure file that ASE reads, or an npz trajectory; velocities are set.

    Without velocities in the file, those of the difference to the frame before ``index``, which needs the spacing of
    the frames: from ``time_fs`` in the file, else ``spacing_fs``.

    Raises:
        InputError: no velocities and no spacing, atoms that change between the frames, and all that
            :func:`check_start` and the readers refuse.
    """
    if path.suffix == ".npz":
        return _from_npz(path, index, spacing_fs)
    from omnicalc.analysis.topology import NEEDS_TOPOLOGY, data_suffix
    from omnicalc.structure_file import read_structure, read_structures

    if data_suffix(path) in NEEDS_TOPOLOGY:
        raise InputError(
            f"{path} holds positions alone; give a file with velocities, such as the frames.xyz that omnicalc md "
            "--save velocities writes beside it"
        )
    atoms = read_structure(path, index)
    if atoms.has("momenta"):
        if spacing_fs is not None:
            raise InputError(f"{path} holds velocities already; leave --spacing out")
        check_start(atoms, str(path))
        return atoms
    everything = read_structures(path)
    place = index % len(everything)
    if place == 0:
        raise InputError(
            f"{path}: frame {index} has no velocities and no frame before it; give a file with velocities (extended "
            "XYZ with momenta, as omnicalc md --save velocities writes) or with two frames, and --spacing"
        )
    return from_two_frames(everything[place - 1], atoms, spacing_fs, str(path))


def from_two_frames(before: Atoms, atoms: Atoms, spacing_fs: float | None, where: str = "the frames") -> Atoms:
    """``atoms`` with the velocities of the way from ``before``. Raises as :func:`read_start`."""
    from ase.units import fs

    if not np.array_equal(before.numbers, atoms.numbers):
        raise InputError(f"{where}: the atoms change between the two frames; one fixed set, in one order, is needed")
    times = [a.info.get("time_fs") for a in (before, atoms)]
    own = None if None in times else float(times[1]) - float(times[0])
    if own is None and spacing_fs is None:
        raise InputError(f"{where}: no velocities, and the spacing of the frames is not known; give it: --spacing 1fs")
    if own is not None and spacing_fs is not None and abs(own - spacing_fs) > 1e-6:
        raise InputError(f"{where}: the frames lie {own:g} fs apart by time_fs, but {spacing_fs:g} fs was given")
    spacing = own if own is not None else spacing_fs
    if not 0 < spacing <= _COARSE:
        raise InputError(
            f"{where}: frames {spacing:g} fs apart give no velocities (hydrogens go to and fro within 10 fs); more "
            f"than 0 and at most {_COARSE:g} fs is needed"
        )
    start = atoms.copy()
    start.set_velocities((atoms.positions - before.positions) / (spacing * fs))
    check_start(start, where)
    return start


def check_start(atoms: Atoms, where: str) -> None:
    """Raise :class:`InputError` for what no decoder can start from."""
    from omnicalc.structure_checks import check_distances, check_structure

    if atoms.pbc.any():
        raise InputError(f"{where}: periodic along some axis; decoders know single molecules (atoms.pbc = False)")
    check_structure(atoms)
    check_distances(atoms)
    pieces = _pieces(atoms)
    if pieces > 1:
        raise InputError(
            f"{where}: {pieces} molecules (by distance); decoders know one at a time, so give each in a file of its own"
        )
    velocities = atoms.get_velocities()
    if not np.isfinite(velocities).all():
        raise InputError(f"{where}: a velocity is not finite")
    if not velocities.any():
        raise InputError(
            f"{where}: all velocities are zero; a decoder continues a motion, so give velocities, or two frames and "
            "--spacing"
        )


def _pieces(atoms: Atoms) -> int:
    """Number of molecules: sets of atoms joined by bonds."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    from omnicalc.md.topology import bonds

    i, j, _ = bonds(atoms)
    graph = coo_matrix((np.ones(len(i), dtype=bool), (i, j)), shape=(len(atoms), len(atoms)))
    return connected_components(graph, directed=False)[0]


def _from_npz(path: Path, index: int, spacing_fs: float | None) -> Atoms:
    from ase import Atoms
    from ase.units import fs

    from omnicalc.data.trajectories import read_trajectory

    trajectory = read_trajectory(path, spacing_fs)
    frames = len(trajectory.x)
    if not -frames <= index < frames:
        raise InputError(f"{path}: no frame {index}; it holds {frames} frames (0 to {frames - 1})")
    atoms = Atoms(trajectory.numbers, trajectory.x[index].astype(float))
    atoms.set_velocities(trajectory.v[index].astype(float) / fs)
    check_start(atoms, str(path))
    return atoms
