"""Raw benchmark files of any kind to one labelled file with a split."""

import gzip
from collections import Counter
from pathlib import Path

from ase import Atoms

from omnicalc.data.geometry_digest import placed_anywhere_digest
from omnicalc.data.lba import TARGET as AFFINITY
from omnicalc.data.lba import read_lba
from omnicalc.data.matbench import read_matbench
from omnicalc.data.protocols import SPLITS, random_split, split_frames, with_property
from omnicalc.data.qm9 import read_qm9
from omnicalc.errors import InputError
from omnicalc.files import write_atomically


def read_raw(source: Path, kind: str = "auto", *, exclude: Path | None = None) -> tuple[list[Atoms], str | None]:
    """The structures of a raw file, and the one property it is about, if there is one.

    ``kind`` "auto": matbench by the ending .json.gz, lba by data.mdb inside, qm9 by a tar or a folder of .xyz files,
    else labelled frames in any format that training reads, MD17's npz among them.
    """
    kind = _guess(source) if kind == "auto" else kind
    if exclude is not None and kind != "qm9":
        raise InputError(f"'{exclude}' lists molecules of QM9, but {source} is read as {kind}; leave --exclude out")
    if kind == "qm9":
        return list(read_qm9(source, exclude=exclude)), None
    if kind == "matbench":
        frames = list(read_matbench(source))
        return frames, next(iter(frames[0].info)) if frames else None
    if kind == "lba":
        return list(read_lba(source)), AFFINITY
    from omnicalc.data.readers import open_frames

    return list(open_frames(source)), None


def write_split(
    out: Path, frames: list[Atoms], key: str | None, *, train: int, valid: int, test: int | None, seed: int
) -> dict[str, int]:
    """Write the frames with their split, and ``key`` in the place of the energy if given; how many of each split.

    ``train``, ``valid``, ``test``: of different geometries, drawn at random; copies go where the first of them went.
    """
    from ase.io import write

    if not out.name.endswith((".extxyz", ".extxyz.gz")):
        raise InputError(f"'{out}' given; a name that ends in .extxyz or .extxyz.gz is needed")
    if not frames:
        raise InputError("there is no structure in this file to split")
    if key is None and (frames[0].calc is None or "energy" not in frames[0].calc.results):
        raise InputError("the frames carry no energies; say which of their numbers to learn with --property")
    numbers: dict[bytes, int] = {}  # of the different geometries
    geometry = [numbers.setdefault(placed_anywhere_digest(atoms), len(numbers)) for atoms in frames]
    parts = random_split(len(numbers), train=train, valid=valid, test=test, seed=seed)
    labelled = split_frames(frames, [parts[g] for g in geometry])
    labelled = with_property(labelled, key) if key else labelled
    chosen = [atoms for atoms in labelled if atoms.info["split"] is not None]
    opener = gzip.open if out.name.endswith(".gz") else open

    def save(temporary: Path) -> None:
        with opener(temporary, "wt") as file:
            write(file, chosen, format="extxyz")

    write_atomically(out, save)
    count = Counter(a.info["split"] for a in chosen)
    return {name: count.get(name, 0) for name in SPLITS}


def _guess(source: Path) -> str:
    if source.name.endswith((".json.gz", ".json")):
        return "matbench"
    if (source / "data.mdb").is_file():
        return "lba"
    if source.is_dir() or ".tar" in source.name:
        return "qm9"
    return "frames"
