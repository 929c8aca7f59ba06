"""``replay.extxyz.gz`` beside the weights: a few of their training frames, so that fine-tuning need not forget.

Bundled weights that learned from the same data share one file: where a card says ``replay = "FOLDER"`` under
``[training]``, it lies in that folder beside their own.
"""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from omnicalc.card import CARD, Card
from omnicalc.errors import WeightsError
from omnicalc.files import write_atomically
from omnicalc.training.dataset import Entry, Source

REPLAY = "replay.extxyz.gz"
SHARED = "replay"  # key of [training] in a card
LEARN = "learn"  # key of frames of which only ENERGIES or only FORCES may be learned, as their source said
ENERGIES, FORCES = "energies", "forces"
VALIDATED = 100  # frames of a source that fine-tuning validates on: no more need to go along


def replay_of(folder: Path, card: Card) -> Path | None:
    """The frames to replay of the weights in ``folder``; None where they have none.

    Raises :class:`WeightsError` where the card names a folder that is not there, as when one was copied alone.
    """
    own, other = folder / REPLAY, card.training.get(SHARED)
    if own.is_file():
        return own
    if other is None:
        return None
    shared = folder.resolve().parent / str(other) / REPLAY
    if not shared.is_file():
        raise WeightsError(
            f"{folder / CARD} says that the frames to replay are in {shared}, which is not there; copy that file to "
            f"{own}, or leave them out with --replay none"
        )
    return shared


def write_replay(sources: Sequence[Source], path: Path) -> None:
    """Of every source up to ``replay`` training frames and half as many validation frames, at most
    :data:`VALIDATED`, evenly spaced, with their labels, and the keys head, split and, where not all labels count
    (energies of another zero, say), :data:`LEARN`.
    """
    from ase.io.extxyz import write_xyz

    frames = []
    for source in sources:
        wanted = source.settings.replay
        checked = min(wanted // 2, VALIDATED)
        for split, entries, count in (("train", source.train, wanted), ("valid", source.valid, checked)):
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
    settings = source.settings
    atoms.info = {**kept, "charge": entry.charge, "spin": entry.spin, "head": settings.head, "split": split}
    if not (settings.energies and settings.forces):
        atoms.info[LEARN] = ENERGIES if settings.energies else FORCES
    for column in set(atoms.arrays) - {"numbers", "positions"}:
        del atoms.arrays[column]
    return atoms
