"""What an analysis may be given: a trajectory file, the folder of a run, an MDAnalysis Universe, a Trajectory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omnicalc.analysis.labels import chemical_bonds, labels_of
from omnicalc.analysis.molecules import guess_bonds
from omnicalc.analysis.quiet import quietly
from omnicalc.analysis.times import spacing_of
from omnicalc.analysis.topology import element_of, without_sites
from omnicalc.analysis.trajectory import FILES_OF_A_RUN, Trajectory, open_trajectory, record_beside, stream_of
from omnicalc.errors import InputError


def as_trajectory(source, top: str | Path | None = None) -> Trajectory:
    """A :class:`Trajectory` of whatever ``source`` is; ``top`` names the topology of a file that has none.

    A Universe gives its atoms (elements, else guessed from names and masses) and its frames; its trajectory is
    left at its first frame. Raises InputError.
    """
    if isinstance(source, Trajectory):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        return open_trajectory(path / "traj.dcd" if (path / "traj.dcd").is_file() else path, top)
    if hasattr(source, "trajectory") and hasattr(source, "atoms"):
        return _of_universe(source)
    raise InputError(
        f"{type(source).__name__} is nothing to analyse; give the path of a trajectory or of a run's folder, "
        f"or an MDAnalysis Universe"
    )


def run_record(trajectory: Trajectory) -> dict:
    """The run.json beside the trajectory of an ``omnicalc md`` run; empty where there is none."""
    return record_beside(trajectory.path) if trajectory.path.name in FILES_OF_A_RUN else {}


def run_temperature(trajectory: Trajectory) -> float | None:
    """Temperature (K) that a run was made at: its thermostat's, or for NVE or a ramp the mean of its log."""
    settings = run_record(trajectory).get("settings", {})
    if bath_temperature(settings) is not None:
        return bath_temperature(settings)
    if settings:
        from omnicalc.analysis.energy import read_log

        try:
            return float(read_log(trajectory.path.parent / "log.csv").temperature.mean())
        except InputError:
            return None
    return None


def bath_temperature(settings: dict) -> float | None:
    """Temperature (K) of the heat bath in the settings of a run; None without a bath, or when it changed."""
    if settings.get("ensemble") not in ("nvt", "npt") or settings.get("temperature_end_K") is not None:
        return None
    return settings.get("temperature_K")


def _of_universe(universe) -> Trajectory:
    atoms = universe.atoms
    with quietly():
        n = len(atoms)
        columns = [getattr(atoms, name, None) for name in ("elements", "names", "resnames", "masses")]
        given = [np.full(n, "") if c is None else c for c in columns[:3]]
        guessed = columns[3] is None or getattr(universe._topology.masses, "is_guessed", False)
        masses = np.zeros(n) if columns[3] is None else np.nan_to_num(columns[3])
        rows = zip(*given, np.round(masses, 4).tolist(), strict=True)
        elements = without_sites([element_of(*row) for row in rows], given[0], np.zeros(n) if guessed else masses)
        reader = universe.trajectory
        path = Path(str(reader.filename)) if reader.filename is not None else Path("universe")
    dt, times = spacing_of(reader)
    own = None if guessed else masses
    trajectory = Trajectory(path, None, elements, reader.n_frames, None, stream_of(reader), dt, times, own_masses=own)
    first = next(trajectory.frames(range(1)))
    positions = np.array(first.positions)
    bonds = getattr(atoms, "bonds", None)
    whole = bonds is not None and len(bonds) > 0
    if whole:
        pairs = chemical_bonds(bonds.indices.astype(np.int64), elements, trajectory.masses)
    else:
        pairs = guess_bonds(positions, elements, first.box)
    bonds_from = "topology" if whole else "distances"
    labels = labels_of(atoms, elements, pairs, bonds_from, positions, first.box, trajectory.masses)
    trajectory.__dict__["labels"] = labels  # in place of the ones read from a topology file
    reader[0]
    return trajectory
