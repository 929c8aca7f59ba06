"""Extended XYZ, plain or gzip-compressed, by the place of every frame in the file."""

import gzip
import io
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path

from omnicalc.errors import InputError


def open_file(path: Path) -> "ExtXYZ":
    return ExtXYZ(path)


class ExtXYZ(Sequence):
    """Frames of one file. A compressed file is unpacked once into an unnamed temporary file, where frames can be
    found by their offsets; memory holds one frame at a time.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = _unpacked(path) if path.suffix == ".gz" else path.open("rb")
        self._starts = _starts(self._file, path)

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, k: int):
        from ase.io.extxyz import read_xyz

        if not -len(self) <= k < len(self):
            raise IndexError(k)
        k %= len(self)
        self._file.seek(self._starts[k])
        text = self._file.read(self._starts[k + 1] - self._starts[k])
        try:
            (atoms,) = read_xyz(io.StringIO(text.decode()), slice(None))
        except Exception as error:  # the parser raises whatever it runs into
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{self.path}, frame {k}: not extended XYZ ({reason})") from None
        return atoms


def _unpacked(path: Path):
    out = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the reader)
    try:
        with gzip.open(path, "rb") as packed:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        out.close()
        raise InputError(f"{path}: damaged gzip file ({error})") from None
    return out


def _starts(file, path: Path) -> array:
    """Offset of every frame, and of the end."""
    starts, place = array("q"), 0
    file.seek(0)
    while line := file.readline():
        if not line.strip():  # blank lines at the end
            place += len(line)
            continue
        try:
            count = int(line)
        except ValueError:
            raise InputError(
                f"{path}, frame {len(starts)}: its first line is {line[:40]!r}; the number of atoms is needed"
            ) from None
        starts.append(place)
        place += len(line)
        for _ in range(count + 1):
            line = file.readline()
            if not line:
                raise InputError(f"{path}, frame {len(starts) - 1}: the file ends inside it; it is cut off")
            place += len(line)
    if not starts:
        raise InputError(f"{path}: empty structure file")
    starts.append(place)
    return starts
