"""A folder that an analysis writes into: its own earlier results are replaced, all else is left alone."""

import hashlib
import json
import os
from pathlib import Path

from omnicalc.errors import InputError, RunError
from omnicalc.files import made_folder, not_writable, sha256_of, write_atomically

_HASH_UP_TO = 1 << 30  # bytes; a longer trajectory is identified by its size alone


class ResultFolder:
    """Results of one command on one trajectory, listed in a JSON record that lies beside them.

    A file may be replaced only if the record says that the same command wrote it from the same trajectory.
    """

    def __init__(self, folder: Path, record: str, made_by: str, source: Path):
        self.folder, self.record, self.made_by = folder, record, made_by
        self.source = os.path.relpath(source.resolve(), folder.resolve())
        self._earlier: list[str] = []

    def claim(self, names: list[str]) -> None:
        """Refuse early, with InputError, if these files (and the record) could not be written here."""
        folder = self.folder
        why = not_writable(folder)
        if why is not None:
            raise InputError(f"{why}; give another folder with --out DIR")
        self._earlier = self._listed()
        for name in [self.record, *names]:
            if (folder / name).exists() and name not in [self.record, *self._earlier]:
                raise InputError(
                    f"{folder / name} is there already, and {self.record} does not list it as written by "
                    f"'{self.made_by}'; nothing was overwritten. Give another folder with --out DIR"
                )

    def write(self, content: dict, files: dict[str, bytes]) -> list[Path]:
        """Write the record and the files, each under a temporary name first; returns their paths.

        The record goes first: cut off in between, the next run still knows every file as its own, and the
        hashes in the record tell that the files are older.
        """
        kept = sorted(set(self._earlier) - set(files))
        record = {
            "made_by": self.made_by,
            "source": self.source,
            **content,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            "files_of_earlier_runs": kept,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with made_folder(self.folder):
                return [
                    _written(self.folder / name, data) for name, data in {self.record: text.encode(), **files}.items()
                ]
        except OSError as error:
            raise RunError(
                f"results could not be written to {self.folder}: {error.strerror or error}; make room there, or give "
                "another folder with --out DIR"
            ) from None

    def _listed(self) -> list[str]:
        path = self.folder / self.record
        if not path.exists():
            return []
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            made_by, source = record["made_by"], record["source"]
            listed = [*record["files"], *record["files_of_earlier_runs"]]
        except (ValueError, KeyError, TypeError, OSError):
            made_by, source, listed = None, None, []
        if made_by != self.made_by:
            raise InputError(f"{path} was not written by '{self.made_by}'; give another folder with --out DIR")
        if source != self.source:
            raise InputError(
                f"{path} holds the results of another trajectory ({source}); nothing was overwritten. "
                f"Give another folder with --out DIR"
            )
        return listed


def fingerprint(path: Path) -> dict:
    """Name, size in bytes and, up to 1 GiB, sha256 of a file; the name alone of what is in memory only."""
    if not path.is_file():
        return {"name": path.name, "bytes": None, "sha256": None}
    size = path.stat().st_size
    digest = sha256_of(path) if size <= _HASH_UP_TO else None
    return {"name": path.name, "bytes": size, "sha256": digest}


def _written(path: Path, data: bytes) -> Path:
    write_atomically(path, lambda part: part.write_bytes(data))
    return path
