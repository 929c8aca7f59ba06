"""The folder of a run: the names in it, one process at a time, and nothing ever overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from omnicalc.errors import InputError
from omnicalc.files import made_folder, no_place_for, not_writable
from omnicalc.md.files import replace_file
from omnicalc.md.saving import FILES

RECORD_FORMAT = 2  # of run.json and of the restart files beside it


class RunFolder:
    """Paths of a run's files."""

    NAMES = (
        "run.json",
        "topology.pdb",
        "traj.dcd",
        "log.csv",
        "timing.csv",
        "restart.npz",
        "restart.previous.npz",
        "energy.png",
        "temperature.png",
    )

    OTHERS = ("cell.png", "centroid.dcd", *FILES.values())  # of runs that ask for them
    PARTS = {"settings": dict, "structure": dict, "model": dict, "resumed": list}  # of run.json

    def __init__(self, path: Path | str):
        self.path = Path(path)
        (
            self.record,
            self.topology,
            self.trajectory,
            self.log,
            self.timing,
            self.restart,
            _,
            self.energy_plot,
            self.temperature_plot,
        ) = (self.path / name for name in self.NAMES)
        self.cell_plot = self.path / "cell.png"  # of npt runs
        self.centroids = self.path / "centroid.dcd"  # of path-integral runs

    def check_free(self, *, to_write: bool = True) -> None:
        """Raise :class:`InputError` when a new run here would touch something that exists, or, unless nothing is
        ``to_write``, could not be written.
        """
        if to_write:
            self._check_writable("give another folder with --out")
        elif why := no_place_for(self.path):
            raise InputError(f"{why}; give another folder with --out")
        if self.record.exists():
            raise InputError(
                f"{self.path} already holds a run: go on with it with --resume, or choose another folder with --out"
            )
        self._check_foreign()

    def read_record(self, *, to_write: bool = True) -> dict | None:
        """The content of run.json; None when no run was started here. ``to_write`` as in :meth:`check_free`.

        Raises :class:`InputError` when the folder holds files of these names that belong to no run.
        """
        if not self.record.exists():
            self.check_free(to_write=to_write)
            return None
        if to_write:
            self._check_writable(
                "a run goes on in the folder that it is in: make that writable, or copy it and give the copy with --out"
            )
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict):
            raise _damaged(self.record, "it is no JSON object")
        for name, kind in self.PARTS.items():
            if not isinstance(record.get(name), kind):
                raise _damaged(self.record, f"'{name}' is missing or damaged")
        if record.get("format") != RECORD_FORMAT:
            raise InputError(
                f"{self.record} has format {record.get('format')}, this version reads {RECORD_FORMAT}: go on with "
                f"omnicalc {record.get('versions', {}).get('omnicalc')}, or start another run with --out"
            )
        return record

    def write_record(self, record: dict) -> None:
        replace_file(self.record, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold it; a second process gets an :class:`InputError`, a killed one lets go.

        A folder made here in which no run came to be (a full disk) is not left behind.
        """
        with ExitStack() as stack:
            lock = self.path / ".lock"
            try:
                stack.enter_context(made_folder(self.path))
                is_new = not lock.exists()
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise InputError(
                    f"cannot write into {self.path}: {error.strerror}; choose another folder with --out"
                ) from error
            try:
                _lock(descriptor, self.path)
                yield
            finally:
                if is_new and not self.record.exists():
                    lock.unlink(missing_ok=True)
                os.close(descriptor)

    def _check_writable(self, remedy: str) -> None:
        why = not_writable(self.path)
        if why is not None:
            raise InputError(f"{why}; {remedy}")

    def _check_foreign(self) -> None:
        there = [name for name in (*self.NAMES, *self.OTHERS) if (self.path / name).exists()]
        if there:
            raise InputError(
                f"{self.path} holds {', '.join(there)} but no run.json, so it is no run to go on with; "
                "choose another folder with --out"
            )


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} cannot be read as the record of a run: {why}; put it back as it was, or choose another folder with "
        "--out"
    )


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another process is running in {path}; wait for it, or choose another folder with --out"
        ) from None
    except OSError:  # file systems without locks
        return
