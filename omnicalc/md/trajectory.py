"""A small DCD writer whose file is right at every moment and can be cut back to any frame.

DCD as CHARMM and NAMD write it: Fortran records, little-endian, each with its length before and after. A
header (84 bytes of counters), a title, the number of atoms; then per frame the unit cell (periodic runs only:
a, gamma, b, beta, alpha, c as float64, Å and degrees) and x, y, z as float32, Å. Frames all have the same
length, so the file's length tells the number of whole ones.

Coordinates are unwrapped, as diffusion needs them: an atom that leaves the box goes on. The header holds no
date and is kept up to date with every frame, so two runs that did the same have the same bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from omnicalc.errors import RunError
from omnicalc.md.box import Box
from omnicalc.md.files import AppendFile

_AKMA_FS = 48.88821  # CHARMM's unit of time in fs
_TITLE = b"Trajectory of OmniCalc: unwrapped coordinates, angstrom"
_COUNTS = 8  # offset of the frame count; the number of the last step lies 12 bytes further on
_CHARMM_VERSION = 24


class DcdWriter:
    """Appends frames of N atoms to a DCD file; every frame is whole or absent."""

    def __init__(self, path: Path, n_atoms: int, *, periodic: bool, timestep_fs: float, interval: int, frames: int = 0):
        """Start ``path`` anew, or, with ``frames`` > 0, open it and keep just that many.

        ``interval``: steps between frames; frame k is at step k * interval. Raises :class:`RunError` when the
        file holds fewer frames or is not of the same system and settings; it is then left as it is.
        """
        self.path, self.n_atoms, self.periodic = path, n_atoms, periodic
        self.interval, self.frames = interval, frames
        self._frame = np.zeros((), dtype=frame_layout(n_atoms, periodic))
        for name, size in [("cell", 48)] * periodic + [(axis, 4 * n_atoms) for axis in "xyz"]:
            self._frame[f"{name}_head"] = self._frame[f"{name}_tail"] = size
        header = _header(n_atoms, periodic, timestep_fs, interval)
        if frames:
            self._check(header)
            self._file = AppendFile(path, len(header) + frames * self._frame.nbytes)
            self._count()
        else:
            self._file = AppendFile(path)
            self._file.append(header)

    def append(self, positions: np.ndarray, box: Box | None = None) -> None:
        """Add one frame: positions (N, 3), Å, turned with ``box``, which a periodic trajectory needs."""
        if self.periodic:
            a, b, c, alpha, beta, gamma = box.dimensions
            self._frame["cell"] = a, gamma, b, beta, alpha, c
            positions = box.orient(positions)
        for k, axis in enumerate("xyz"):
            self._frame[axis] = positions[:, k]
        self._file.append(self._frame.tobytes())
        self.frames += 1
        self._count()

    def sync(self) -> None:
        """Wait until all frames are on the disk."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()

    def _count(self) -> None:
        last = min((self.frames - 1) * self.interval, 2**31 - 1)
        self._file.patch(_COUNTS, struct.pack("<i", self.frames))
        self._file.patch(_COUNTS + 12, struct.pack("<i", last))

    def _check(self, header: bytes) -> None:
        found = whole_frames(self.path, self.n_atoms, self.periodic)
        if found < self.frames:
            raise RunError(
                f"{self.path} holds {found} whole frames where {self.frames} are needed; nothing was changed"
            )
        with self.path.open("rb") as file:
            if _without_counts(file.read(len(header))) != _without_counts(header):
                raise RunError(
                    f"{self.path} is not the trajectory of this run (its header differs); nothing was changed"
                )


def frame_layout(n_atoms: int, periodic: bool) -> np.dtype:
    """One frame as a packed numpy type; all its records with the length markers around them."""
    records = [("cell", "<f8", 6)] * periodic + [(axis, "<f4", n_atoms) for axis in "xyz"]
    fields = []
    for name, kind, n in records:
        fields += [(f"{name}_head", "<i4"), (name, kind, (n,)), (f"{name}_tail", "<i4")]
    return np.dtype(fields)


def whole_frames(path: Path, n_atoms: int, periodic: bool) -> int:
    """Number of whole frames in the file, whatever its header says; 0 when there is no file."""
    size = path.stat().st_size if path.exists() else 0
    return max(0, size - file_size(0, n_atoms, periodic)) // frame_layout(n_atoms, periodic).itemsize


def file_size(frames: int, n_atoms: int, periodic: bool) -> int:
    """Bytes of a file of so many frames."""
    return len(_header(n_atoms, periodic, 1.0, 1)) + frames * frame_layout(n_atoms, periodic).itemsize


def _header(n_atoms: int, periodic: bool, timestep_fs: float, interval: int) -> bytes:
    """Header of a file without frames."""
    counters = struct.pack("<9i", 0, 0, interval, 0, 0, 0, 0, 0, 0)  # frames, first step, interval, last step
    counters += struct.pack("<f10i", timestep_fs / _AKMA_FS, int(periodic), *[0] * 8, _CHARMM_VERSION)
    title = struct.pack("<i", 1) + _TITLE.ljust(80)
    return b"".join(_record(r) for r in (b"CORD" + counters, title, struct.pack("<i", n_atoms)))


def _record(content: bytes) -> bytes:
    marker = struct.pack("<i", len(content))
    return marker + content + marker


def _without_counts(header: bytes) -> bytes:
    return header[:_COUNTS] + header[_COUNTS + 4 : _COUNTS + 12] + header[_COUNTS + 16 :]
