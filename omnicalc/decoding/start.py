"""Where a decoder starts: one frame with velocities, or two frames whose spacing in time is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.units import fs

from omnicalc.data.trajectories import check_spacing, check_speed
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_ISOTOPE = 0.1  # amu by which a mass may differ from the element's own


def read_start(
    path: Path, index: int = -1, spacing_fs: float | None = None, *, spacing_is_for_others: bool = False
) -> Atoms:
    """The start in a file: any structure file that ASE reads, or an npz trajectory; velocities are set.

    Without velocities in the file, those of the difference to the frame before ``index``, which needs the spacing of
    the frames: from ``time_fs`` in the file, else ``spacing_fs``. A spacing that the file has no use for is refused,
    unless it is for another file as well.

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
        if spacing_fs is not None and not spacing_is_for_others:
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
    if not np.array_equal(before.numbers, atoms.numbers):
        raise InputError(f"{where}: the atoms change between the two frames; one fixed set, in one order, is needed")
    times = frame_times((before, atoms), where)
    own = None if times is None else float(times[1] - times[0])
    if own is None and spacing_fs is None:
        raise InputError(f"{where}: no velocities, and the spacing of the frames is not known; give it: --spacing 1fs")
    if own is not None and spacing_fs is not None and abs(own - spacing_fs) > 1e-6:
        raise InputError(f"{where}: the frames lie {own:g} fs apart by time_fs, but {spacing_fs:g} fs was given")
    spacing = own if own is not None else spacing_fs
    check_spacing(spacing, where)
    start = atoms.copy()
    start.set_velocities((atoms.positions - before.positions) / (spacing * fs))
    check_start(start, where)
    return start


def frame_times(frames: Sequence[Atoms], where: str) -> np.ndarray | None:
    """``time_fs`` of all frames, None where one has none. Raises :class:`InputError` for what is no time."""
    times = [a.info.get("time_fs") for a in frames]
    if any(t is None for t in times):
        return None
    try:
        found = np.array(times, dtype=float)
    except (TypeError, ValueError):
        found = np.array([np.nan])
    if found.shape != (len(times),) or not np.isfinite(found).all():
        raise InputError(f"{where}: time_fs is not one finite number in every frame; mend it, or take it out")
    return found


def check_start(atoms: Atoms, where: str) -> None:
    """Raise :class:`InputError` for what no decoder can start from."""
    from ase import Atoms

    from omnicalc.structure_checks import check_distances, check_structure

    if not isinstance(atoms, Atoms):
        raise InputError(f"{where} is of type {type(atoms).__name__}; one ase.Atoms is needed, so call once for each")
    if atoms.pbc.any():
        raise InputError(f"{where}: periodic along some axis; decoders know single molecules (atoms.pbc = False)")
    check_structure(atoms)
    check_distances(atoms)
    pieces = _pieces(atoms)
    if pieces > 1:
        raise InputError(
            f"{where}: {pieces} molecules (by distance); decoders know one at a time, so give each in a file of its own"
        )
    _check_charge_and_masses(atoms, where)
    velocities = atoms.get_velocities()
    check_speed(velocities * fs, where)
    if not velocities.any():
        raise InputError(
            f"{where}: all velocities are zero; a decoder continues a motion, so give velocities, or two frames and "
            "--spacing"
        )


def _check_charge_and_masses(atoms: Atoms, where: str) -> None:
    """Decoders know of neither, so others than those that they learned from would change nothing."""
    from ase.data import atomic_masses

    from omnicalc.charge_and_spin import charge_and_spin

    charge, spin = charge_and_spin(atoms)
    if charge != 0 or (atoms.info.get("spin") is not None and spin > 2):
        raise InputError(
            f"{where}: charge {charge:+d} and spin {spin}; decoders know neutral molecules in their ground state"
        )
    heavier = np.flatnonzero(np.abs(atoms.get_masses() - atomic_masses[atoms.numbers]) > _ISOTOPE)
    if heavier.size:
        k = int(heavier[0])
        raise InputError(
            f"{where}: atom {k} ({atoms.symbols[k]}) has a mass of {atoms.get_masses()[k]:g} amu; decoders know the "
            "elements' own masses, so leave masses out"
        )


def _pieces(atoms: Atoms) -> int:
    """Number of molecules: sets of atoms joined by bonds."""
    from omnicalc.bonds import bonds, molecule_numbers

    i, j, _ = bonds(atoms)
    return int(molecule_numbers(len(atoms), i, j).max()) + 1


def _from_npz(path: Path, index: int, spacing_fs: float | None) -> Atoms:
    from ase import Atoms

    from omnicalc.data.trajectories import read_trajectory

    trajectory = read_trajectory(path, spacing_fs)
    frames = len(trajectory.x)
    if not -frames <= index < frames:
        raise InputError(f"{path}: no frame {index}; it holds {frames} frames (0 to {frames - 1})")
    atoms = Atoms(trajectory.numbers, trajectory.x[index].astype(float))
    atoms.set_velocities(trajectory.v[index].astype(float) / fs)
    check_start(atoms, str(path))
    return atoms
