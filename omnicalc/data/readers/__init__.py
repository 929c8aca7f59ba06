"""Labelled structures from files of many formats, one at a time, never a whole file in memory where the format allows.

:func:`open_frames` gives a sequence of ``ase.Atoms``; labels lie in ``atoms.calc`` (eV, eV/Å, eV/Å^3), everything else
(charge, spin, split, molecule, config_type) in ``atoms.info``.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from omnicalc.errors import InputError

_BY_ENDING = {
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".extxyz.gz": "extxyz",
    ".xyz.gz": "extxyz",
    ".aselmdb": "aselmdb",
    ".lmdb": "aselmdb",
    ".h5": "spice",
    ".hdf5": "spice",
    ".npz": "md17",
}


def open_frames(path: Path) -> Sequence:
    """The frames of a labelled file: ``len(frames)``, ``frames[k]`` an ``ase.Atoms``, in the order of the file.

    Endings: .extxyz and .xyz (also .gz), .aselmdb and .lmdb (OMol25), .h5 and .hdf5 (SPICE), .npz (MD17, rMD17);
    anything else is read whole by ASE.

    Raises:
        InputError: no such file, or one that is not of the format its name says.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    kind = next((kind for ending, kind in _BY_ENDING.items() if name.endswith(ending)), None)
    if kind is not None:
        return import_module(f"omnicalc.data.readers.{kind}").open_file(path)
    from omnicalc.structure_file import read_structures

    return read_structures(path)
