"""ASE's own trajectory format, written so that the file is right at every moment and can be cut back to any frame.

ASE's writer makes the bytes. What it appends is appended first; only then are the few words at the front changed that
make the new frame count: its place in the index, the number of frames, the place of the index.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.md.files import AppendFile

if TYPE_CHECKING:
    from ase import Atoms

SIZES = ("traj", "traj_items", "traj_index")  # bytes of the file, frames, where their index begins
_ITEMS, _INDEX = 32, 40  # offsets of two 64-bit numbers in the header of an ULM file


class AseTrajectory:
    """Appends frames to a ``.traj`` file; every frame is whole or absent."""

    def __init__(self, path: Path, sizes: Mapping[str, int], stack: ExitStack, like: Atoms):
        """``sizes``: what :attr:`sizes` was at the moment to go on from; empty: a new file. ``like``: what will be
        written, every time with this list of constraints.
        """
        from ase.io.trajectory import TrajectoryWriter

        size = sizes.get("traj", 0)
        self._file = stack.enter_context(AppendFile(path, size))
        self._view = _View(self._file)
        if size:
            self._file.patch(_ITEMS, struct.pack("<qq", sizes["traj_items"], sizes["traj_index"]))
            self._writer = TrajectoryWriter(str(path), mode="a")  # reads what is there
            self._writer.backend.fd.close()
            self._writer.backend.fd, self._writer.backend.hasfileno = self._view, False
            self._recognise(like.constraints)
        else:
            self._writer = TrajectoryWriter(self._view, mode="w")

    def _recognise(self, constraints: list) -> None:
        """Constraints that equal those of the first frame are to be the same: the writer compares by identity, and
        would give every frame a head of its own.
        """
        head = self._writer.header_data
        if [c.todict() for c in head["constraints"]] == [c.todict() for c in constraints]:
            head["constraints"] = constraints

    @property
    def sizes(self) -> dict[str, int]:
        """What is needed to go on from this moment."""
        backend = self._writer.backend
        return dict(zip(SIZES, (self._file.size, int(backend.nitems), int(backend.pos0)), strict=True))

    def append(self, atoms: Atoms) -> None:
        """Add ``atoms`` with the results of its calculator. Raises :class:`omnicalc.errors.RunError`."""
        self._view.clear()
        self._writer.write(atoms)
        self._view.flush_to_disk()

    def sync(self) -> None:
        """Wait until all frames are on the disk."""
        self._file.sync()


class _View:
    """A file as ASE's writer sees it: what it appends, and what it changes of older bytes, kept until it is done."""

    def __init__(self, file: AppendFile):
        self._file = file
        self.clear()

    def clear(self) -> None:
        self._position, self._new, self._changes = self._file.size, bytearray(), []

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset if whence == 0 else self._file.size + len(self._new) + offset
        return self._position

    def write(self, data: bytes) -> int:
        first = self._position - self._file.size
        if first < 0:
            self._changes.append((self._position, bytes(data)))
        else:
            self._new[first : first + len(data)] = data
        self._position += len(data)
        return len(data)

    def flush(self) -> None:
        """Not yet."""

    def close(self) -> None:
        """The file belongs to the run."""

    def flush_to_disk(self) -> None:
        self._file.append(bytes(self._new))
        for offset, data in self._changes:
            self._file.patch(offset, data)
