"""``replay.extxyz.gz`` beside the weights: a few of their training frames, so that fine-tuning need not forget."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from omnicalc.files import write_atomically
from omnicalc.training.dataset import Entry, Source

REPLAY = "replay.extxyz.gz"


def write_replay(sources: Sequence[Source], path: Path) -> None:
    """Of every source up to ``replay`` training frames and half as many validation frames, evenly spaced, with their
    labels, and the keys head and split.
    """
    from ase.io.extxyz import write_xyz

    frames = []
    for source in sources:
        wanted = source.settings.replay
        for split, entries, count in (("train", source.train, wanted), ("valid", source.valid, wanted // 2)):
            frames += [_frame(source, entry, split) for entry in _spaced(entries, count)]
    text = io.StringIO()
    write_xyz(text, frames)
    packed = gzip.compress(text.getvalue().encode(), mtime=0)  # the same bytes for the same frames
    write_atomically(path, lambda temporary: temporary.write_bytes(packed))


def _spaced(entries: Sequence[Entry], count: int) -> list[Entry]:
    if count >= len(entries):
        return list(entries)
    return [entries[k * len(entries) // count] for k in range(count)]


def _frame(source: Source, entry: Entry, split: str):
    atoms = source.files[entry.file][entry.frame]
    kept = {k: atoms.info[k] for k in ("molecule", "config_type") if k in atoms.info}
    atoms.info = {**kept, "charge": entry.charge, "spin": entry.spin, "head": source.settings.head, "split": split}
    for column in set(atoms.arrays) - {"numbers", "positions"}:
        del atoms.arrays[column]
    return atoms
