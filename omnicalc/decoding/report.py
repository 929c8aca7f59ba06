"""What physics says about decoded frames: bonds, temperature, energy; errors where the true frames are known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnicalc.decoding.baselines import baselines, mean_structure
from omnicalc.decoding.start import frame_times
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_SAME = 0.02  # Å, within which a frame of the reference is the start
_ON_FRAME = 1e-3  # of the spacing, within which a time is that of a frame
_SPLINE = 2.0  # fs between frames up to which a spline between them follows hydrogens
_STEP = 0.5  # fs, of the integration that a decoder replaces

Forces = Callable[["Atoms"], tuple[float, np.ndarray]]  # eV and eV/Å


def report_of(
    start: Atoms,
    frames: Sequence[Atoms],
    seconds: float,
    *,
    reference: Path | None = None,
    spacing_fs: float | None = None,
    potential: str | None = None,
    forces: Forces | None = None,
) -> dict:
    """All that is said of decoded ``frames``, which took ``seconds``: physics; errors where there is a ``reference``
    (:func:`errors_against`); the time of an integration where there are ``forces``, of ``potential``.
    """
    horizon = float(frames[-1].info["time_fs"])
    report = {
        "frames": len(frames),
        "horizon_fs": horizon,
        "seconds": seconds,
        "physics": physics(start, frames, forces),
    }
    if reference is not None:
        report["errors"] = errors_against(reference, spacing_fs, start, frames)
    if forces is not None:
        taken, steps = integrate(start, horizon, forces)
        report["integration"] = {"potential": potential, "steps": steps, "seconds": taken}
    return report


def physics(start: Atoms, frames: Sequence[Atoms], forces: Forces | None = None) -> dict:
    """Bond lengths (Å, against the start), temperature (K, from velocities without the motion as a whole), energy (eV).

    ``forces`` gives potential energy and forces of a frame; energies are relative to the start's.
    """
    from omnicalc.bonds import bonds

    i, j, _ = bonds(start)
    i, j = i[i < j], j[i < j]
    there = np.linalg.norm(start.positions[i] - start.positions[j], axis=1)
    origin = None if forces is None else forces(start)[0]
    rows = []
    for frame in (start, *frames):
        length = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1)
        row = {
            "time_fs": float(frame.info.get("time_fs", 0.0)) if frame is not start else 0.0,
            "temperature_K": temperature(frame),
            "largest_bond_change_A": float(np.abs(length - there).max(initial=0.0)),
            "mean_bond_change_A": float((length - there).mean()) if len(length) else 0.0,
            "closest_pair_A": _closest(frame),  # None for one atom
        }
        if forces is not None:
            row["potential_energy_eV"] = forces(frame)[0] - origin
        rows.append(row)
    return {"bonds": len(i), "frames": rows}


def temperature(atoms: Atoms) -> float:
    """K, of the kinetic energy beyond that of the centre of mass; 0 for one atom."""
    from ase.units import kB

    if len(atoms) < 2:
        return 0.0
    masses, v = atoms.get_masses()[:, None], atoms.get_velocities()
    v = v - (masses * v).sum(0) / masses.sum()
    return float((masses * v * v).sum() / (3 * (len(atoms) - 1) * kB))


def _closest(atoms: Atoms) -> float | None:
    if len(atoms) < 2:
        return None
    apart = atoms.get_all_distances()
    return float(apart[np.triu_indices(len(atoms), 1)].min())


def errors_against(reference: Path, spacing_fs: float | None, start: Atoms, frames: Sequence[Atoms]) -> dict:
    """Root mean square errors (Å per coordinate) of ``frames`` and of the baselines against the start's trajectory.

    The mean structure is that of the reference's frames outside the stretch that is predicted.

    Raises:
        InputError: other atoms, no frame that is the start, a reference that ends too early, or whose frames lie far
            apart and elsewhere in time.
    """
    from omnicalc.decoding.start_batch import batch_of

    known = read_reference(reference, spacing_fs)
    numbers, positions, spacing = known.numbers, known.x, known.spacing_fs
    if not np.array_equal(numbers, start.numbers):
        raise InputError(f"{reference}: its atoms are not those of the start, in the same order")
    away = np.abs(positions - start.positions).max((1, 2))
    first = int(away.argmin())
    if away[first] > _SAME:
        raise InputError(
            f"{reference}: no frame is the start (the nearest, frame {first}, is {away[first]:.2f} Å away); give the "
            "trajectory that the start was taken from"
        )
    later = np.array([f.info["time_fs"] for f in frames]) / spacing
    last = first + math.ceil(later[-1] - _ON_FRAME)
    end = next(b for a, b in known.segments if a <= first < b)
    if last >= end:
        raise InputError(
            f"{reference}: {end - 1 - first} frames of {spacing:g} fs follow the start"
            + (" in its segment" if len(known.segments) > 1 else "")
            + f", fewer than {frames[-1].info['time_fs']:g} fs; give a longer reference or a smaller --horizon"
        )
    wanted = torch.from_numpy(_between(positions[first : last + 1], later, spacing, str(reference)))[None]
    outside = np.r_[0:first, last + 1 : len(positions)]
    mean = mean_structure(positions[outside][::5], numbers) if len(outside) >= 10 else None
    batch, times = batch_of(start, spacing * later)
    decoded = torch.from_numpy(np.array([f.positions for f in frames]))[None]
    found = {"decoder": decoded, **baselines(batch, times, mean)}
    rmse = {name: (x - wanted).square().mean((0, 2, 3)).sqrt().tolist() for name, x in found.items()}
    return {"start_frame": first, "times_fs": times[0].tolist(), "rmse_A": rmse, "mean_structure": mean is not None}


def _between(positions: np.ndarray, later: np.ndarray, spacing_fs: float, where: str) -> np.ndarray:
    """Positions (T, N, 3) at the frames ``later`` (T,) of ``positions``, by a cubic spline where they are not whole."""
    whole = np.rint(later)
    off = np.abs(later - whole)
    if off.max() < _ON_FRAME:
        return positions[whole.astype(int)]
    if spacing_fs > _SPLINE:
        raise InputError(
            f"{where}: its frames lie {spacing_fs:g} fs apart, and none is at {spacing_fs * later[off.argmax()]:g} fs; "
            "choose --frames and --horizon so that all decoded frames fall on its frames"
        )
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.arange(len(positions)), positions)(later)


@dataclass(frozen=True)
class Reference:
    """A trajectory as it was: atomic numbers, positions (F, N, 3) Å, frame spacing, stretches without a break."""

    numbers: np.ndarray
    x: np.ndarray
    spacing_fs: float
    segments: tuple[tuple[int, int], ...]


def read_reference(path: Path, spacing_fs: float | None) -> Reference:
    """Any trajectory that is read here. Raises :class:`InputError` for changing atoms, missing frames, no spacing."""
    if path.suffix == ".npz":
        from omnicalc.data.trajectories import read_trajectory

        trajectory = read_trajectory(path, spacing_fs)
        return Reference(
            trajectory.numbers, trajectory.x.astype(np.float64), trajectory.spacing_fs, trajectory.segments
        )
    from omnicalc.data.trajectories import check_gaps

    numbers, positions, spacing = _single(path, spacing_fs)
    if len(positions) > 1:
        check_gaps(positions[None], str(path))
    return Reference(numbers, positions, spacing, ((0, len(positions)),))


def _single(path: Path, spacing_fs: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Atomic numbers, positions and frame spacing of one stretch."""
    from omnicalc.analysis.topology import NEEDS_TOPOLOGY, data_suffix
    from omnicalc.structure_file import read_structures

    if data_suffix(path) in NEEDS_TOPOLOGY:
        return _streamed(path, spacing_fs)
    frames = read_structures(path)
    for k, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, frames[0].numbers):
            raise InputError(f"{path}: the atoms change at frame {k}; one fixed set, in one order, is needed")
    times = frame_times(frames, str(path))
    if times is not None and len(frames) > 1:
        gaps = np.diff(times)
        if gaps.min() <= 0 or np.ptp(gaps) > 1e-3 * gaps.mean():
            k = int(np.abs(gaps - np.median(gaps)).argmax())
            raise InputError(
                f"{path}: frames {k} and {k + 1} lie {gaps[k]:g} fs apart, others {np.median(gaps):g} fs; frames are "
                "missing, so cut the file there"
            )
        own = float(gaps.mean())
        if spacing_fs is not None and abs(own - spacing_fs) > 1e-3 * own:
            raise InputError(
                f"{path}: the frames lie {own:g} fs apart by time_fs, but {spacing_fs:g} fs was given; leave it out"
            )
        spacing_fs = own
    if spacing_fs is None:
        raise InputError(f"{path} does not tell its frame spacing; give it: --spacing 1fs")
    return frames[0].numbers, np.array([f.positions for f in frames]), spacing_fs


def _streamed(path: Path, spacing_fs: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """The same from a DCD, XTC or other file with its topology beside it."""
    from ase.data import atomic_numbers

    from omnicalc.analysis.trajectory import open_trajectory

    trajectory = open_trajectory(path)
    own = None if trajectory.dt_ps is None else 1000 * trajectory.dt_ps
    spacing = spacing_fs if spacing_fs is not None else own
    if spacing is None:
        raise InputError(f"{path} does not tell its frame spacing; give it: --spacing 1fs")
    positions = [np.array(f.positions, dtype=np.float64) for f in trajectory.frames(trajectory.select())]
    return np.array([atomic_numbers[e] for e in trajectory.elements]), np.array(positions), spacing


def integrate(start: Atoms, horizon_fs: float, forces: Forces) -> tuple[float, int]:
    """Wall-clock seconds and steps of velocity Verlet over ``horizon_fs`` at 0.5 fs: what decoding replaces."""
    from ase.units import fs

    steps, h = max(1, round(horizon_fs / _STEP)), _STEP * fs
    atoms, masses = start.copy(), start.get_masses()[:, None]
    v, force = start.get_velocities(), forces(atoms)[1]  # the first call builds kernels and is not timed
    begun = time.perf_counter()
    for _ in range(steps):
        v = v + 0.5 * h * force / masses
        atoms.positions += h * v
        force = forces(atoms)[1]
        v = v + 0.5 * h * force / masses
    return time.perf_counter() - begun, steps


def as_text(report: dict) -> str:
    """The report for people."""
    what = f"{report['frames']} frame{'s' * (report['frames'] > 1)} over {report['horizon_fs']:g} fs"
    lines = [f"{report['model']}: {what} in {report['seconds']:.4f} s"]
    energy = any("potential_energy_eV" in row for row in report["physics"]["frames"])
    columns = "time fs   temperature K   largest bond change Å   closest pair Å"
    lines.append(columns + ("   energy eV" if energy else ""))
    for row in report["physics"]["frames"]:
        text = f"{row['time_fs']:7.1f} {row['temperature_K']:15.0f} {row['largest_bond_change_A']:23.3f}"
        closest = row["closest_pair_A"]
        text += f" {'-':>16}" if closest is None else f" {closest:16.3f}"
        lines.append(text + (f" {row['potential_energy_eV']:11.3f}" if energy else ""))
    lines.append("temperature: a mean over what may happen moves less than any single course; cold frames are the sign")
    if "errors" in report:
        errors = report["errors"]
        header = "root mean square error, Å".ljust(40) + "".join(f"{t:8.1f}" for t in errors["times_fs"])
        lines += ["", header + "  fs"]
        lines += [f"{name:<40}" + "".join(f"{e:8.3f}" for e in values) for name, values in errors["rmse_A"].items()]
        if not errors["mean_structure"]:
            lines.append("no mean structure: the reference has too few frames outside the stretch that is predicted")
    if "integration" in report:
        run = report["integration"]
        lines.append(
            f"\nintegrating the same {report['horizon_fs']:g} fs with {run['potential']} in {run['steps']} steps: "
            f"{run['seconds']:.3f} s, {run['seconds'] / report['seconds']:.0f} times as long"
        )
    return "\n".join(lines)
