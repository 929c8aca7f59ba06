"""Frames of a run that its potential knew least about: where the members of its committee disagree most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_MOST_FRAMES = 1000  # looked at, evenly spaced over longer runs


def run_record(run: Path) -> dict:
    """The record of a folder of `omnicalc md`.

    Raises:
        InputError: no such folder, or a periodic run, whose frames are too large for labels of clusters.
    """
    from omnicalc.analysis.trajectory import record_beside

    record = record_beside(run / "run.json")
    if not record:
        raise InputError(f"'{run}' is no folder of `omnicalc md`: it has no run.json that can be read")
    if any(record["structure"]["pbc"]):
        raise InputError(
            f"'{run}' is periodic; labels are of molecules and clusters. Run a cluster (--no-pbc), or carve spheres "
            "with a recipe of kind carve"
        )
    return record


def uncertain_frames(
    run: Path, record: dict, spread: Callable[[Atoms], np.ndarray], count: int, limit: float = 0.0
) -> list[tuple[str, Atoms]]:
    """Up to ``count`` frames with the largest spread of the force on any atom, no two of them neighbours in time.

    Args:
        spread: of one structure, (n_atoms,) in eV/Å.
        limit: eV/Å; frames below are known well enough.

    Raises:
        InputError: no frame is above ``limit``.
    """
    from ase import Atoms

    from omnicalc.analysis.trajectory import open_trajectory

    path = next((run / name for name in ("traj.dcd", "traj.traj") if (run / name).is_file()), run / "traj.dcd")
    trajectory = open_trajectory(path)
    wanted = np.unique(np.linspace(0, trajectory.n_frames - 1, min(trajectory.n_frames, _MOST_FRAMES)).astype(int))
    info = {key: record["structure"][key] for key in ("charge", "spin")}
    found = []
    for index in wanted.tolist():
        frame = next(trajectory.frames(range(index, index + 1)))
        atoms = Atoms(trajectory.elements, np.array(frame.positions, dtype=float), info=dict(info))
        atoms.info |= {"origin": "uncertain", "forces_std": round(float(np.max(spread(atoms))), 4)}
        found.append((index, atoms))
    apart = max(1, len(wanted) // (4 * count))  # neighbours in time are nearly the same structure
    chosen: list[tuple[int, Atoms]] = []
    for rank in sorted(range(len(found)), key=lambda k: -found[k][1].info["forces_std"]):
        if len(chosen) == count or found[rank][1].info["forces_std"] < limit:
            break
        if all(abs(rank - other) >= apart for other, _ in chosen):
            chosen.append((rank, found[rank][1]))
    if not chosen:
        largest = max(atoms.info["forces_std"] for _, atoms in found)
        raise InputError(f"no frame of '{run}' has a spread above {limit:g} eV/Å; the largest is {largest:g}")
    return [(f"{path}, frame {found[rank][0]}", atoms) for rank, atoms in sorted(chosen, key=lambda one: one[0])]
