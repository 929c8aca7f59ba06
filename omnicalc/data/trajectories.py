"""Trajectories of single molecules from npz files: ours (TG-mini), MD17, MD22 and rMD17.

MD17 and MD22 hold ``R`` and ``z``; rMD17 holds ``coords``, ``nuclear_charges`` and ``old_indices``: its rows are a
shuffled part of MD17, so that neighbouring rows are not neighbours in time and give no velocities. None of them tells
its frame spacing (MD17: 0.5 fs); it has to be given. Positions are in Å, or in the unit that ``r_unit`` names.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnicalc.data.npz_units import length_unit
from omnicalc.errors import InputError

_POSITIONS, _NUMBERS = ("coords", "R"), ("nuclear_charges", "z")
_GAP = 6.0  # times the usual largest step of an atom, and
_LEAP = 0.02  # Å: beyond both, frames are missing in between
_COARSE = 3.0  # fs between two frames beyond which their difference is no velocity of a hydrogen
_FASTEST = 0.3  # Å/fs; hydrogens at 1000 K have 0.05
LEAST_FRAMES = 3  # of a segment: velocities of differences need one on either side


@dataclass(frozen=True)
class Trajectory:
    """One molecule; frames of all segments behind one another, F in all."""

    name: str
    numbers: np.ndarray  # (N,)
    x: np.ndarray  # (F, N, 3) float32 Å
    v: np.ndarray  # (F, N, 3) float32 Å/fs
    spacing_fs: float
    segments: tuple[tuple[int, int], ...]  # first frame and the one after the last, of each stretch without a break

    def starts(self, window: int, part: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
        """Frames whose next ``window`` frames lie in the same segment and in the same ``part`` of all frames.

        Parts as (0, 0.75) and (0.75, 1) are a split blocked in time: their windows share no frame.
        """
        first, last = (round(f * len(self.x)) for f in part)
        pieces = [np.arange(max(a, first), min(b, last) - window) for a, b in self.segments]
        return np.concatenate(pieces)


def read_trajectory(path: Path | str, spacing_fs: float | None = None) -> Trajectory:
    """The trajectory in an npz file.

    ``spacing_fs`` between frames is needed where the file does not tell it.

    Raises:
        InputError: no such file, not a trajectory, a spacing that is unknown or contradicts the file, an unknown unit,
            shuffled rows, non-finite or missing frames.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is no npz file that can be read ({error})") from None
    return trajectory_of(arrays, path.stem, str(path), spacing_fs)


def trajectory_of(arrays: dict[str, np.ndarray], name: str, where: str, spacing_fs: float | None) -> Trajectory:
    """The same from the arrays of a file; ``where`` names it in errors."""
    positions = next((arrays[k] for k in _POSITIONS if k in arrays), None)
    numbers = next((arrays[k] for k in _NUMBERS if k in arrays), None)
    if positions is None or numbers is None:
        raise InputError(f"{where} holds {', '.join(arrays)}; coords or R, and nuclear_charges or z, are needed")
    if numbers.ndim != 1 or positions.ndim not in (3, 4) or positions.shape[-2:] != (len(numbers), 3):
        raise InputError(
            f"{where}: positions of shape {positions.shape} do not fit {numbers.shape} atomic numbers; one fixed set "
            "of atoms is needed in all frames"
        )
    if (numbers != np.round(numbers)).any() or numbers.min() < 1:
        raise InputError(f"{where}: atomic numbers {numbers.tolist()}; whole numbers, 1 or more, are needed")
    if "old_indices" in arrays:
        raise InputError(
            f"{where} has its rows shuffled (old_indices, as rMD17 has): neighbouring rows are not neighbours in time, "
            "so they give no velocities; use the MD17 file that it was drawn from"
        )
    spacing = _spacing(arrays, where, spacing_fs)
    if positions.ndim == 3:
        positions = positions[None]
    bad = np.argwhere(~np.isfinite(positions).all((2, 3)))
    if len(bad):
        raise InputError(f"{where}: frame {bad[0][1]} has a position that is not finite; leave that stretch out")
    if positions.shape[1] < LEAST_FRAMES:
        raise InputError(f"{where} holds {positions.shape[1]} frames; at least {LEAST_FRAMES} are needed")
    if (unit := length_unit(arrays, where)) != 1:
        if "velocities" in arrays:
            raise InputError(f"{where}: velocities beside positions in {arrays['r_unit']}; give both in Å and Å/fs")
        positions = positions * unit
    check_gaps(positions, where)
    if "velocities" not in arrays:  # differences over two frames, at the ends over one
        check_spacing(spacing, where)
        v = np.gradient(positions.astype(np.float64), spacing, axis=1)
    elif arrays["velocities"].size != positions.size:
        raise InputError(
            f"{where}: velocities of shape {arrays['velocities'].shape} do not fit positions of shape {positions.shape}"
        )
    else:
        v = arrays["velocities"].reshape(positions.shape)
    check_speed(v, where)
    frames = positions.shape[1]
    return Trajectory(
        name,
        numbers.astype(np.int64),
        positions.reshape(-1, *positions.shape[2:]).astype(np.float32),
        v.reshape(-1, *positions.shape[2:]).astype(np.float32),
        spacing,
        tuple((k * frames, (k + 1) * frames) for k in range(positions.shape[0])),
    )


def read_folder(
    folder: Path | str, names: list[str] | None = None, spacing_fs: float | None = None
) -> list[Trajectory]:
    """All trajectories of a folder of npz files, or those of ``names``, in their order.

    Raises:
        InputError: no such folder, or a name that it does not hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"'{folder}' is no folder; make one with: omnicalc data build tg-mini --out {folder}")
    files = {file.stem: file for file in sorted(folder.glob("*.npz"))}
    missing = sorted(set(names or ()) - set(files))
    if missing or not files:
        raise InputError(
            f"'{folder}' lacks {', '.join(missing) or 'npz files'}; make what is missing with: "
            f"omnicalc data build tg-mini --out {folder}"
        )
    return [read_trajectory(files[name], spacing_fs) for name in (names or files)]


def _spacing(arrays: dict[str, np.ndarray], where: str, given: float | None) -> float:
    own = arrays.get("spacing_fs")
    if own is not None and own.size != 1:
        raise InputError(f"{where}: spacing_fs holds {own.size} numbers; one spacing of all frames is needed")
    own = None if own is None else float(own.item())
    if own is None and given is None:
        raise InputError(f"{where} does not tell its frame spacing; give it in fs (MD17 has 0.5)")
    if own is not None and given is not None and abs(own - given) > 1e-9:
        raise InputError(f"{where} has a frame spacing of {own:g} fs, but {given:g} fs was given; leave it out")
    spacing = own if own is not None else given
    if not (np.isfinite(spacing) and spacing > 0):
        raise InputError(f"frame spacing {spacing} fs given; more than 0 is needed")
    return spacing


def check_spacing(spacing_fs: float, where: str) -> None:
    """Raise :class:`InputError` for frames too far apart in time for their differences to be velocities."""
    if not 0 < spacing_fs <= _COARSE:
        raise InputError(
            f"{where}: frames {spacing_fs:g} fs apart give no velocities (hydrogens go to and fro within 10 fs); more "
            f"than 0 and at most {_COARSE:g} fs is needed"
        )


def check_speed(velocities: np.ndarray, where: str) -> None:
    """Raise :class:`InputError` for velocities (Å/fs) that are not finite, or faster than any atom of a molecule."""
    if not np.isfinite(velocities).all():
        raise InputError(f"{where}: a velocity is not finite")
    fastest = float(np.linalg.norm(velocities, axis=-1).max(initial=0.0))
    if fastest > _FASTEST:
        raise InputError(
            f"{where}: an atom moves at {fastest:.3g} Å/fs, where a hydrogen at 1000 K has 0.05; frames are missing or "
            "shuffled, the frame spacing is wrong, or velocities have other units (ASE's are Å/fs divided by "
            "ase.units.fs)"
        )


def check_gaps(positions: np.ndarray, where: str) -> None:
    """Raise :class:`InputError` where an atom leaps, as it does over frames that are missing.

    ``positions`` (S, F, N, 3) Å, of S stretches.
    """
    leaps = np.abs(np.diff(positions, axis=1)).max((2, 3))
    limit = max(_LEAP, _GAP * float(np.median(leaps)))
    if leaps.max() > limit:
        segment, frame = np.unravel_index(leaps.argmax(), leaps.shape)
        raise InputError(
            f"{where}: an atom leaps {leaps.max():.2f} Å between frames {frame} and {frame + 1}"
            + (f" of segment {segment}" if len(positions) > 1 else "")
            + f", where {np.median(leaps):.3f} Å is usual; frames seem to be missing, so cut the file there"
        )
