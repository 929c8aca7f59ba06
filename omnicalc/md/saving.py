"""What can be saved with every frame beside the trajectory, and in which files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

FILES = {"extxyz": "frames.xyz", "xtc": "traj.xtc", "traj": "frames.traj"}  # what is written, and where
CHOICES = ("forces", "velocities", *FILES)


def formats(save: str) -> list[str]:
    """Keys of FILES that ``save``, such as ``forces,velocities``, asks for; :class:`InputError` for other words.

    Forces and velocities go into the formats that hold them: extended XYZ when neither was named.
    """
    asked = words(save)
    wrong = [word for word in sorted(asked) if word not in CHOICES]
    if wrong:
        raise InputError(f"'{wrong[0]}' cannot be saved; known: {', '.join(CHOICES)} (--save)")
    arrays = {"forces", "velocities"} & asked and "traj" not in asked
    return [name for name in FILES if name in asked or (name == "extxyz" and arrays)]


def words(save: str) -> set[str]:
    """Words between commas."""
    return {word for word in (piece.strip() for piece in save.split(",")) if word}


def frame_info(atoms: Atoms, step: int, timestep_fs: float) -> dict[str, object]:
    """What a frame of a run on ``atoms`` says of itself: its time, and what its energy cannot be computed without."""
    system = {key: atoms.info[key] for key in ("charge", "spin") if key in atoms.info}
    return {"step": step, "time_fs": step * timestep_fs, **system}
