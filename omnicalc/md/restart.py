"""Restart files: the whole state and where the output files stood, with the previous one kept."""

from __future__ import annotations

import io
import os
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from omnicalc.errors import RunError
from omnicalc.md.files import replace_file
from omnicalc.md.state import State

# NumPy has Python parse the header of an array, which Python 3.11 does not do in several threads at once: now and then
# "SystemError: AST constructor recursion depth mismatch", when a garbage collection changes threads meanwhile.
_ONE_READS = threading.Lock()
_FORMAT = 2
_BYTES = "bytes_"
_TRIPPED = "guards_tripped"  # absent in files of versions that did not keep it


@dataclass(frozen=True, eq=False)
class Restart:
    """A moment from which a run goes on as if it had never stopped."""

    state: State
    frames: int  # whole frames in the trajectory at this step
    log_bytes: int  # length of the log at this step
    reference: (
        torch.Tensor | None
    )  # (N, 3), Å, positions at which the neighbour list was searched; None: the potential has none
    reference_cell: torch.Tensor | None = None  # (3, 3), Å, the cell in which it was
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes of further files, see omnicalc.md.frames
    tripped: frozenset[str] = frozenset()  # guards that have spoken and are not over, see omnicalc.md.guards

    def to_bytes(self) -> bytes:
        """A zip of plain arrays (npz without pickle), each with a checksum."""
        arrays = self.state.to_arrays()
        arrays |= {
            "format": np.array(_FORMAT),
            "frames": np.array(self.frames),
            "log_bytes": np.array(self.log_bytes),
            _TRIPPED: np.array(sorted(self.tripped), dtype=str),
        }
        for name in ("reference", "reference_cell"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name).cpu().numpy()
        arrays |= {f"{_BYTES}{name}": np.array(size) for name, size in self.sizes.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path, device: torch.device | str = "cpu") -> Restart:
        """Raises :class:`RunError` when the file is torn, damaged or of another format."""
        try:
            with _ONE_READS, np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if int(arrays["format"]) != _FORMAT:
                raise RunError(f"{path} has format {int(arrays['format'])}; this version reads {_FORMAT}")
            reference, cell = (
                torch.from_numpy(arrays[name]).to(device) if name in arrays else None
                for name in ("reference", "reference_cell")
            )
            state = State.from_arrays(arrays, device)
            sizes = {name.removeprefix(_BYTES): int(arrays[name]) for name in arrays if name.startswith(_BYTES)}
            tripped = frozenset(arrays[_TRIPPED].tolist()) if _TRIPPED in arrays else frozenset()
            return cls(state, int(arrays["frames"]), int(arrays["log_bytes"]), reference, cell, sizes, tripped)
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            RuntimeError,
            SyntaxError,
            tokenize.TokenError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise RunError(f"{path} cannot be read: {error}") from error


def previous(path: Path) -> Path:
    """Where the restart file before the one at ``path`` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(path: Path, restart: Restart) -> None:
    """Write a restart file; the one that was there is kept as the previous one. At every instant one of the
    two is whole.
    """
    if path.exists():
        beside = path.with_name(f".{path.name}.link")
        beside.unlink(missing_ok=True)
        try:
            os.link(path, beside)  # a second name, so that `path` itself is there all the time
        except OSError:  # file systems without links
            os.replace(path, previous(path))
        else:
            os.replace(beside, previous(path))
            beside.unlink(missing_ok=True)  # renaming onto another name of the same file leaves both
    replace_file(path, restart.to_bytes())


def load(path: Path, device: torch.device | str, usable: Callable[[Restart], bool]) -> Restart | None:
    """The restart file at ``path``, else the previous one; None when neither is whole and ``usable``. Changes nothing:
    :func:`settle` does, once the run goes on.
    """
    for candidate in (path, previous(path)):
        try:
            restart = Restart.read(candidate, device)
        except RunError:
            continue
        if usable(restart):
            return restart
    return None


def settle(path: Path, used: Restart) -> None:
    """A previous file that had to serve takes the place of the newer one, so that the next :func:`save` keeps it."""
    try:
        newest = Restart.read(path, "cpu").state.step
    except RunError:
        newest = None
    if newest != used.state.step:
        os.replace(previous(path), path)


def steps(path: Path, device: torch.device | str = "cpu") -> set[int]:
    """Steps of the whole restart files at ``path`` and before it."""
    found = set()
    for candidate in (path, previous(path)):
        try:
            found.add(Restart.read(candidate, device).state.step)
        except RunError:
            continue
    return found
