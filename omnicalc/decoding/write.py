"""Decoded frames as files: a trajectory that ``omnicalc analyze`` reads, and frames with velocities to start from."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.files import write_atomically

if TYPE_CHECKING:
    from ase import Atoms

FILES = ("traj.dcd", "topology.pdb", "frames.extxyz", "report.json")


def write_frames(folder: Path, start: Atoms, frames: Sequence[Atoms], report: dict) -> None:
    """Start and ``frames`` (evenly spaced) into ``folder``: positions as DCD with a topology, and with velocities."""
    from ase.io import write

    from omnicalc.md.topology import write_topology
    from omnicalc.md.trajectory import DcdWriter

    first = start.copy()
    first.info = {"time_fs": 0.0}
    everything = [first, *frames]
    write_topology(folder / "topology.pdb", start)
    spacing = float(frames[0].info["time_fs"])
    trajectory = DcdWriter(folder / "traj.dcd", len(start), periodic=False, timestep_fs=spacing, interval=1)
    for frame in everything:
        trajectory.append(frame.positions)
    trajectory.sync()
    trajectory.close()
    text = io.StringIO()
    write(text, everything, format="extxyz", columns=["symbols", "positions", "momenta"])
    write_atomically(folder / "frames.extxyz", lambda temporary: temporary.write_text(text.getvalue()))
    content = json.dumps(report, indent=1)
    write_atomically(folder / "report.json", lambda temporary: temporary.write_text(content))
