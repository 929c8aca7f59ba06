"""The files of published checkpoints: what ``torch.save`` wrote, of which tensors and plain values alone are read.

A file with Python objects in it is refused before any of it runs.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch

from omnicalc.errors import InputError, WeightsError


def check_whole(path: Path) -> None:
    """Raise :class:`WeightsError` for an archive whose checksums do not fit its bytes: ``torch.load`` never looks."""
    if not zipfile.is_zipfile(path):
        return  # of another form, or cut off: the readers say so
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        broken = str(error)
    if broken is not None:
        raise WeightsError(f"{path}: damaged: checksums do not fit the bytes ({broken}); copy or download it again")


def mentions(path: Path, *words: str) -> bool:
    """Whether a file is a torch archive whose pickle, which is not run, speaks of all of ``words``."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))
    except (OSError, zipfile.BadZipFile, StopIteration):
        return False
    return all(word.encode() in content for word in words)


def read_container(path: Path) -> object:
    """What ``torch.save`` put into a file, if it is tensors and plain values.

    Raises:
        InputError: no such file.
        WeightsError: a file that is no checkpoint, or holds Python objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():  # about the pickle's protocol, before the error that says all
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", str(error))
        if found is None:
            raise WeightsError(f"{path}: not a checkpoint that torch.save wrote") from None
        raise WeightsError(
            f"{path}: refused, because it holds more than tensors ({found[1]}), and loading that could run code; "
            "nothing of it was run. A published checkpoint holds tensors and plain values"
        ) from None
    except Exception as error:  # whatever torch's readers make of bytes that are no checkpoint
        raise not_a_checkpoint(path, error) from None


def not_a_checkpoint(path: Path, error: Exception) -> WeightsError:
    """What to raise where torch's readers raised ``error``."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(f"{path}: not a checkpoint that torch.save wrote ({reason})")
