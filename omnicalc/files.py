"""Files that are either wholly there or not at all, and folders that do not stay behind empty."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, sync the result to disk, then rename it.

    Raises ``OSError``, of the name as it was given where there is no folder to write it into.
    """
    if reason := no_folder_for(path):
        raise FileNotFoundError(errno.ENOENT, reason, str(path))
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def no_folder_for(path: Path) -> str | None:
    """What to say when the folder of ``path`` is not there; None when it is."""
    return None if path.parent.is_dir() else f"there is no folder '{path.parent}'; make it first, or give another place"


def not_writable(folder: Path) -> str | None:
    """Why no file could be made in ``folder``, were it made now; None when one could. Touches nothing."""
    if why := no_place_for(folder):
        return why
    there = _nearest(folder)
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def no_place_for(folder: Path) -> str | None:
    """Why there can be no such folder, whoever makes it; None when there can."""
    there = _nearest(folder)
    if there.is_dir():
        return None
    return f"{there} is not a folder" if there != folder else f"{folder} is a file"


def _nearest(path: Path) -> Path:
    """``path``, or what there is of it."""
    return next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """``folder``, made with its parents where it is not there; those made here that are empty at the end go again.

    Raises ``OSError`` when it cannot be made.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # not empty, or never made
                path.rmdir()
