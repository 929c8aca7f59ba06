"""A small part of labelled or unlabelled frames, spread over classes and molecules, for a costlier level of theory."""

from __future__ import annotations

import gzip
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.charge_and_spin import charge_of
from omnicalc.data.geometry_digest import geometry_digest
from omnicalc.files import write_atomically

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Limits:
    """Which frames may be taken; None: any."""

    max_atoms: int | None = None
    max_force: float | None = None  # eV/Å, of frames whose forces are known
    charge: int | None = None  # total, e
    elements: frozenset[str] | None = None  # symbols; frames with any other are left out

    def allow(self, atoms: Atoms, where: str) -> bool:
        """Raises :class:`InputError`, saying ``where``, for charge and spin that contradict what else a frame says."""
        if self.max_atoms is not None and len(atoms) > self.max_atoms:
            return False
        if self.charge is not None and charge_of(atoms, where) != self.charge:
            return False
        if self.elements is not None and not set(atoms.get_chemical_symbols()) <= self.elements:
            return False
        labels = {} if atoms.calc is None else atoms.calc.results
        if self.max_force is None or "forces" not in labels:
            return True
        return bool(np.linalg.norm(labels["forces"], axis=1).max() <= self.max_force)


def subset(frames: Sequence[Atoms], count: int | None, limits: Limits, seed: int) -> list[Atoms]:
    """Up to ``count`` frames, those of one ``key`` and geometry once, taken in turn from every ``config_type``, and
    there in turn from every molecule, so that every first part of the result is spread alike.

    Args:
        limits: other frames are left out.
        seed: of the order within a molecule and of the molecules.
    """
    once: dict = {}
    for k, atoms in enumerate(frames):
        key = atoms.info.get("key")
        once.setdefault(k if key is None else (str(key), geometry_digest(atoms)), (k, atoms))
    kept = [atoms for k, atoms in once.values() if limits.allow(atoms, f"frame {k}")]
    order = np.random.default_rng(seed).permutation(len(kept))
    classes: dict[str, dict[str, list[Atoms]]] = defaultdict(lambda: defaultdict(list))
    for k in order:
        info = kept[k].info
        classes[str(info.get("config_type", ""))][str(info.get("molecule", ""))].append(kept[k])
    turns = [in_turn(list(molecules.values())) for _, molecules in sorted(classes.items())]
    chosen = in_turn(turns)
    return chosen if count is None else chosen[:count]


def in_turn(lists: Sequence[Sequence[Atoms]]) -> list[Atoms]:
    """First of all lists, then second of all that have one, and so on."""
    turns = []
    while lists := [one for one in lists if len(one) > len(turns)]:  # those that are used up cost no more turns
        turns.append([one[len(turns)] for one in lists])
    return [frame for turn in turns for frame in turn]


def write_frames(out: Path, frames: Sequence[Atoms]) -> None:
    """Extended XYZ, compressed where the name ends in ``.gz``, or ASE-LMDB where it ends in ``.aselmdb``.

    The same frames give the same bytes of extended XYZ.
    """
    if out.suffix == ".aselmdb":
        from omnicalc.data.ase_lmdb import write_ase_lmdb

        return write_ase_lmdb(out, frames)
    from ase.io import write

    text = io.StringIO()
    write(text, frames, format="extxyz")
    data = text.getvalue().encode()
    if out.name.endswith(".gz"):
        data = gzip.compress(data, 9, mtime=0)
    write_atomically(out, lambda path: path.write_bytes(data))
