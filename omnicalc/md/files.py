"""Files that survive a crash: replaced as a whole, or only appended to and cut back to a known length."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from omnicalc.errors import RunError
from omnicalc.files import write_atomically


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: written beside it, synced, renamed; a reader sees the old file or the new.

    Raises :class:`RunError` when the disk does not take it; what was at ``path`` is then still there.
    """
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(data))
        sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` last through a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def free_MB(folder: Path) -> float:  # noqa: N802
    """Space left on the disk of ``folder``, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free / 1e6


def is_behind(path: Path, source: Path) -> bool:
    """Whether ``path``, which is made from ``source``, is missing or older; not so where there is no ``source``."""
    if not source.exists():
        return False
    return not path.exists() or path.stat().st_mtime_ns < source.stat().st_mtime_ns


def shortage(path: Path, size: int) -> str | None:
    """What to say of a file that has not its first ``size`` bytes; None: it has."""
    if not path.exists():
        return f"{path} is missing"
    found = path.stat().st_size
    return None if found >= size else f"{path} has {found} bytes where {size} are needed"


class AppendFile:
    """A file that only grows; an append that fails is taken back, so that only whole ones are there."""

    def __init__(self, path: Path, size: int = 0):
        """Open ``path``, cut to its first ``size`` bytes (0: start it anew); RunError, with nothing changed, when it is
        shorter or missing.
        """
        self.path, self.size = path, size
        if size and (short := shortage(path, size)):
            raise RunError(f"{short}; put it back as it was, or start another run with --out")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def append(self, data: bytes) -> None:
        """Add ``data`` at the end. Raises :class:`RunError`, with nothing added, when it does not fit."""
        try:
            _write_all(self._descriptor, data)
        except OSError as error:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
            raise _cannot_write(self.path, error) from error
        self.size += len(data)

    def patch(self, offset: int, data: bytes) -> None:
        """Write over bytes that are there already, as for a count kept in a header."""
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        try:
            _write_all(self._descriptor, data)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        finally:
            os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def sync(self) -> None:
        """Wait until what was appended is on the disk."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> AppendFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while len(view):  # a nearly full disk takes a part and reports the error at the next call
        view = view[os.write(descriptor, view) :]


def _cannot_write(path: Path, error: OSError) -> RunError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    cause = "the disk is full (or its quota or file size limit reached)" if full else (error.strerror or str(error))
    return RunError(f"cannot write {path}: {cause}; make it writable, then go on with --resume")
