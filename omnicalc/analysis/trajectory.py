"""Trajectories as a stream of frames: positions and periodic boxes of one fixed set of atoms.

Formats that hold coordinates only (.dcd, .xtc, .trr, ...) are streamed through MDAnalysis with constant
memory, with the elements from a topology file. Structure formats (.extxyz, .xyz, .traj, whatever ASE reads;
.pdb and .gro through MDAnalysis) name their atoms themselves; what ASE reads is kept in memory as float32
coordinates, which is less than the text it came from. Slabs and wires have a box too, periodic along some axes only,
where their file or the record of their run says so (:func:`omnicalc.analysis.cells.periodic_cell`). Beside .xtc
and .trr files MDAnalysis keeps a hidden index of their frames (.NAME_offsets.npz).
"""

import bz2
import gzip
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path

import numpy as np

from omnicalc.analysis.cells import OPEN, compact_cell, periodic_cell, volume_and_heights
from omnicalc.analysis.labels import Labels, read_labels
from omnicalc.analysis.pdb_cell import cell_above_models
from omnicalc.analysis.quiet import quietly
from omnicalc.analysis.times import spacing_of, spacing_told
from omnicalc.analysis.topology import (
    NEEDS_TOPOLOGY,
    composition,
    data_suffix,
    find_topology,
    read_atoms,
    usual_masses,
)
from omnicalc.analysis.truncation import damage_of
from omnicalc.errors import InputError
from omnicalc.md.mass_record import from_record

_FORMATS = {".lammpstrj": "LAMMPSDUMP", ".dump": "LAMMPSDUMP", ".nc": "NCDF", ".netcdf": "NCDF"}
_SELF_NAMED = {".pdb", ".gro"}  # MDAnalysis reads both their atoms and their frames
_OF_A_RUN = {"traj.dcd", "centroid.dcd", "traj.xtc"}  # what a run writes that cannot say which axes are periodic
FILES_OF_A_RUN = _OF_A_RUN | {"frames.xyz", "frames.traj"}
_HEAVY_H = 1.5  # amu
_SAME_MASS = 1e-3  # relative, of the whole system whose masses are only repartitioned
_EVERYWHERE = (True, True, True)


@dataclass(frozen=True)
class Frame:
    """One frame. ``positions`` may lie outside the box; they are turned as the box is (a along x)."""

    index: int
    positions: np.ndarray  # (N, 3) float32, Å; valid until the next frame is read
    box: np.ndarray | None  # (6,) float64: a, b, c in Å, alpha, beta, gamma in degrees; None without any period
    velocities: np.ndarray | None = None  # (N, 3) float32, Å/ps, where the file holds them; turned likewise
    pbc: tuple[bool, bool, bool] = _EVERYWHERE  # the box is long and means nothing along the other axes

    @property
    def bulk(self) -> bool:
        """Whether the box is periodic along all three axes: only then its volume is that of the system."""
        return self.box is not None and all(self.pbc)

    @property
    def volume(self) -> float:
        """Å^3, of a frame with a box."""
        return self._of_box[0]

    @property
    def heights(self) -> np.ndarray:
        """Distances between opposite faces of the box (3,), Å."""
        return self._of_box[1]

    @cached_property
    def compact(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions and box in the most compact cell of the lattice: for distances and angles of nearest images, which
        beyond half the smallest height are not found in all others.
        """
        found = None if self.box is None else compact_cell(self.box)
        if found is None:
            return self.positions, self.box
        box, turn = found
        return (self.positions @ turn).astype(np.float32), box

    @cached_property
    def _of_box(self) -> tuple[float, np.ndarray]:
        return volume_and_heights(self.box)


@dataclass(frozen=True)
class Trajectory:
    """An opened trajectory; make one with :func:`open_trajectory`."""

    path: Path
    topology: Path | None  # the file that named the atoms, None where the trajectory did
    elements: np.ndarray  # (N,) str
    n_frames: int  # whole frames
    damage: str | None  # what is wrong behind the last whole frame, None for a sound file
    source: "_Source"
    dt_ps: float | None = None  # between frames, where the file tells
    times: np.ndarray | None = None  # (n,) ps, of the frames of a file that are not evenly spaced
    cut_off: bool = False  # the damage is an end inside a frame that n_frames does not count
    own_masses: np.ndarray | None = None  # (N,), amu, that the file or the record of its run tells; zero: not of these

    @property
    def n_atoms(self) -> int:
        return len(self.elements)

    @cached_property
    def masses(self) -> np.ndarray:
        """Masses (N,), amu: those of the run or the topology where they tell, else standard atomic weights; zero for
        unknown elements.
        """
        usual = usual_masses(self.elements)
        return usual if self.own_masses is None else np.where(self.own_masses > 0, self.own_masses, usual)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many atoms there are of each element. Heavy hydrogens are D, so that nobody takes heavy water for light;
        not those whose mass was taken from their neighbours.
        """
        heavy = (self.elements == "H") & (self.masses > _HEAVY_H)
        repartitioned = np.isclose(self.masses.sum(), usual_masses(self.elements).sum(), rtol=_SAME_MASS)
        return composition(self.elements if repartitioned else np.where(heavy, "D", self.elements))

    @cached_property
    def labels(self) -> Labels:
        """Names, residues and bonds of the atoms, from the topology; the first frame fills what it lacks."""
        named = self.topology or self.path
        first = next(self.frames(range(1)))
        return read_labels(named, self.elements, np.array(first.positions), first.box, self.masses)

    def select(self, start: int | None = None, stop: int | None = None, step: int | None = None) -> range:
        """Frame indices of the Python slice ``[start:stop:step]``.

        Of a file that was cut off, these are whole frames (:meth:`notes` says so). Raises InputError if it selects
        nothing, if step is below 1, or if it may run into other damage behind the whole frames (a ``stop`` inside
        them is how one says that they are enough).
        """
        if step is not None and step < 1:
            raise InputError(f"--step {step} is not a stride; give 1 or more")
        if self.damage and not self.cut_off and (stop is None or not 0 <= stop <= self.n_frames):
            hint = f"; --stop {self.n_frames} uses the whole frames before it" if self.n_frames else ""
            raise InputError(f"{self.path}: {self.damage}{hint}")
        chosen = range(*slice(start, stop, step).indices(self.n_frames))
        if not chosen:
            parts = (("--start", start), ("--stop", stop), ("--step", step))
            given = " ".join(f"{name} {value}" for name, value in parts if value is not None)
            raise InputError(
                f"{given or 'the whole file'} selects no frame of {self.path}, which holds {self.n_frames} "
                f"(indices 0 to {self.n_frames - 1}; stop is exclusive, negative values count from the end)"
            )
        return chosen

    def notes(self) -> list[str]:
        """What a result should say of the file."""
        notes = [f"{self.damage}; only its {self.n_frames} whole frames can be used"] if self.cut_off else []
        if self.path.name not in FILES_OF_A_RUN and self._may_lack_a_cell():
            notes.append(
                "the file has no cell, so nothing is seen across a boundary; if there was one (plain .xyz leaves it "
                "out), write .extxyz with it (ASE: atoms.cell, atoms.pbc)"
            )
        return notes

    def frames(self, indices: range) -> Iterator[Frame]:
        """The frames of a range from :meth:`select`, in order, one in memory at a time.

        Raises InputError, with the index, for a frame that cannot be read, holds a non-finite coordinate, or spreads
        too far along an open axis.
        """
        expected = iter(indices)
        try:
            for frame in self.source.read(indices):
                if not np.isfinite(frame.positions).all():
                    atom = int(np.argwhere(~np.isfinite(frame.positions))[0, 0])
                    raise InputError(f"{self.path}: frame {frame.index} has a non-finite coordinate at atom {atom}")
                if frame.box is not None and not all(frame.pbc):
                    self._check_spread(frame)
                next(expected)
                yield frame
        except (OSError, ValueError, EOFError, RuntimeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise self._unreadable(next(expected, None), f" ({type(error).__name__}: {error})") from None
        missing = next(expected, None)
        if missing is not None:
            raise self._unreadable(missing, "")

    def _may_lack_a_cell(self) -> bool:
        """Whether there are several molecules and no cell."""
        return next(self.frames(range(1))).box is None and bool(self.labels.molecules.any())

    def _check_spread(self, frame: Frame) -> None:
        spread = np.ptp(frame.positions[:, ~np.array(frame.pbc)], axis=0).max()  # open axes lie along x, y or z
        if spread > OPEN / 2:
            raise InputError(
                f"{self.path}: the atoms of frame {frame.index} spread over {spread:.0f} Å along an axis that is not "
                f"periodic, more than the {OPEN / 2:.0f} Å that can be told from images; --stop {frame.index} uses "
                f"the frames before it"
            )

    def _unreadable(self, index: int | None, why: str) -> InputError:
        return InputError(f"{self.path}: frame {index} cannot be read{why}; --stop {index} uses the frames before it")


class _Source:
    """Where frames come from."""

    def read(self, indices: range) -> Iterable[Frame]:
        raise NotImplementedError


class _Streamed(_Source):
    def __init__(self, reader, pbc: tuple[bool, bool, bool] = _EVERYWHERE):
        self.reader, self.pbc = reader, pbc
        self._above = cell_above_models(reader.filename) if "PDB" in reader.format else None

    def read(self, indices):
        with quietly():
            stepped = iter(self.reader[indices.start : indices.stop : indices.step])
        for index in indices:
            with quietly():
                ts = next(stepped, None)
            if ts is None:
                return
            yield self._frame(index, ts)

    def _frame(self, index: int, ts) -> Frame:
        box = _usable(self._above if ts.dimensions is None else ts.dimensions)
        positions, velocities = ts.positions, ts.velocities if ts.has_velocities else None
        if box is None or all(self.pbc):
            return Frame(index, positions, box, velocities)
        from MDAnalysis.lib.mdamath import triclinic_vectors

        found = periodic_cell(triclinic_vectors(box, dtype=np.float64), self.pbc)
        if found is None:
            return Frame(index, positions, None, velocities)
        vectors, box = found
        turn = np.linalg.inv(vectors) @ triclinic_vectors(box, dtype=np.float64)
        positions, velocities = (None if x is None else (x @ turn).astype(np.float32) for x in (positions, velocities))
        return Frame(index, positions, box, velocities, self.pbc)


class _InMemory(_Source):
    def __init__(self, frames: list[Frame]):
        self.frames = frames

    def read(self, indices):
        return (self.frames[k] for k in indices)


def stream_of(reader) -> _Source:
    """Frames of an MDAnalysis reader."""
    return _Streamed(reader)


def open_trajectory(path: str | Path, top: str | Path | None = None) -> Trajectory:
    """Open a trajectory, finding the topology beside it where the format needs one.

    ``top`` names the topology instead; for a format that names its own atoms, it replaces those names.
    Raises InputError for a missing, empty or unreadable file, a missing topology and different atom counts.
    """
    path = Path(path)
    if not path.is_file():
        inside = path / "traj.dcd" if (path / "traj.dcd").is_file() else "a file such as traj.dcd"
        what = f"is a folder; give {inside}" if path.is_dir() else f"does not exist; give {inside}"
        raise InputError(f"{path} {what}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): no frame was written to it")
    suffix = data_suffix(path)
    if suffix in NEEDS_TOPOLOGY:
        topology = Path(top) if top is not None else find_topology(path)
    else:
        topology = Path(top) if top is not None else None
    named = topology if topology is not None else path if suffix in _SELF_NAMED else None
    elements, masses = read_atoms(named) if named is not None else (None, None)
    if suffix in NEEDS_TOPOLOGY | _SELF_NAMED:
        trajectory = _open_with_mdanalysis(path, topology, elements)
    else:
        trajectory = _open_with_ase(path, topology, elements)
    if (of_run := _masses_of(path, trajectory.elements)) is not None:
        masses = of_run
    if masses is not None and masses.any():
        trajectory = replace(trajectory, own_masses=masses)
    if trajectory.n_frames == 0:
        raise InputError(f"{path} holds no frame" + (f": {trajectory.damage}" if trajectory.damage else ""))
    return trajectory


def _open_with_mdanalysis(path: Path, topology: Path | None, elements: np.ndarray) -> Trajectory:
    failure = None
    with quietly():
        try:
            from MDAnalysis.coordinates.core import reader

            kind = _FORMATS.get(data_suffix(path))
            source = reader(str(path), format=kind, n_atoms=len(elements), convert_units=True)
            n_atoms, n_frames = source.n_atoms, source.n_frames
        except Exception as error:  # the readers raise whatever their parsers met
            failure = _unreadable_file(path, error)  # not raised here: its traceback would keep the reader alive
    if failure is not None:
        raise failure
    _same_count(path, n_atoms, topology, len(elements))
    damage, cut_off = damage_of(path, n_frames, source)
    dt, times = spacing_of(source)
    stream = _Streamed(source, _pbc_of(path))
    return Trajectory(path, topology, elements, n_frames, damage, stream, dt, times, cut_off)


def _pbc_of(path: Path) -> tuple[bool, bool, bool]:
    """Which axes are periodic, where the run.json beside a trajectory tells; all of them elsewhere.

    A slab's or a wire's .dcd has a box all the same, with vacuum or an arbitrary length along the open axes.
    """
    if path.name not in _OF_A_RUN:
        return _EVERYWHERE
    try:
        a, b, c = record_beside(path)["structure"]["pbc"]
        return bool(a), bool(b), bool(c)
    except (ValueError, KeyError, TypeError):
        return _EVERYWHERE  # no such run


def _masses_of(path: Path, elements: np.ndarray) -> np.ndarray | None:
    """Masses (N,), amu, that the run.json beside a trajectory tells: of isotopes, and of repartitioned hydrogens."""
    told = record_beside(path).get("masses") if path.name in FILES_OF_A_RUN else None
    if not isinstance(told, dict):
        return None
    try:
        return from_record(told, elements)
    except ValueError:
        raise InputError(
            f"{path.parent / 'run.json'} tells the masses of other atoms than the topology has; give that of this "
            "trajectory with --top FILE"
        ) from None


def record_beside(path: Path) -> dict:
    """The run.json beside a file; empty where there is none."""
    try:
        found = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _open_with_ase(path: Path, topology: Path | None, elements: np.ndarray | None) -> Trajectory:
    from ase.io import iread
    from ase.io.formats import filetype

    frames, times, symbols, masses, damage = [], [], None, None, None
    try:
        with quietly(), _unpacked(path) as plain:
            if filetype(str(plain)) == "lammps-dump-text":
                raise InputError(f"{path} numbers atom types and names no elements; name it .lammpstrj and give --top")
            for atoms in iread(str(plain), index=":"):
                found = np.array(atoms.get_chemical_symbols(), dtype="<U2")
                if symbols is not None and not np.array_equal(found, symbols):
                    damage = (
                        f"frame {len(frames)} holds other atoms ({atoms.get_chemical_formula()}) than "
                        f"frame 0, or another order of them; a trajectory has the same atoms throughout"
                    )
                    break
                symbols = found
                if not frames and atoms.has("masses"):
                    masses = atoms.get_masses()
                frames.append(_standing(len(frames), atoms))
                times.append(atoms.info.get("time_fs"))  # as runs of ours say
    except InputError:
        raise
    except Exception as error:  # the readers raise whatever their parsers met
        if not frames:
            raise _unreadable_file(path, error) from None
        damage = f"frame {len(frames)} cannot be read ({type(error).__name__}: {error})"
    if elements is not None and symbols is not None:
        _same_count(path, len(symbols), topology, len(elements))
        symbols = elements
    symbols = np.array([], dtype="<U2") if symbols is None else symbols
    if frames and len(symbols) == 0:
        raise InputError(f"{path} holds frames without atoms")
    told = all(isinstance(time, Real) for time in times)
    dt, uneven_times = spacing_told(1e-3 * np.array(times, dtype=np.float64)) if told else (None, None)
    return Trajectory(
        path, topology, symbols, len(frames), damage, _InMemory(frames), dt, uneven_times, own_masses=masses
    )


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """A plain copy of a compressed file for as long as it is read: ASE seeks backwards in what it reads."""
    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix.lower())
    if opener is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="omnicalc-") as folder:
        plain = Path(folder) / path.stem
        with opener(path, "rb") as packed, plain.open("wb") as out:
            shutil.copyfileobj(packed, out)
        yield plain


def _standing(index: int, atoms) -> Frame:
    """A frame of ASE's, turned so that a lies along x, and wrapped."""
    from ase.units import fs
    from MDAnalysis.lib.mdamath import triclinic_vectors

    positions = atoms.positions
    velocities = atoms.get_velocities() * (1000.0 * fs) if atoms.has("momenta") else None
    pbc = atoms.pbc & atoms.cell.array.any(axis=1)
    found = periodic_cell(atoms.cell.array, pbc)
    box = None
    if found is not None:
        vectors, box = found
        inverse, standing = np.linalg.inv(vectors), triclinic_vectors(box, dtype=np.float64)
        fractions = positions @ inverse
        fractions[:, pbc] %= 1.0
        positions = fractions @ standing
        velocities = None if velocities is None else velocities @ inverse @ standing
    velocities = None if velocities is None else velocities.astype(np.float32)
    return Frame(index, positions.astype(np.float32), box, velocities, tuple(pbc.tolist()))


def _usable(box) -> np.ndarray | None:
    """The box as float64, or None where it spans no volume."""
    if box is None:
        return None
    box = np.asarray(box, dtype=np.float64)
    return box if np.isfinite(box).all() and (box > 0).all() and (box[3:] < 180).all() else None


def _same_count(path: Path, n_atoms: int, topology: Path | None, n_named: int) -> None:
    if n_atoms != n_named:
        raise InputError(
            f"{path} holds {n_atoms} atoms per frame but the topology {topology} names {n_named}; "
            f"give the topology of this trajectory with --top FILE"
        )


def _unreadable_file(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read as a trajectory ({type(error).__name__}: {error}); "
        f"give an intact .dcd, .xtc, .trr, .extxyz or another format that MDAnalysis or ASE reads"
    )
