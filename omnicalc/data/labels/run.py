"""All frames of some files to one file of labelled entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.data.labels.electrons import charge_and_unpaired, check_not_periodic
from omnicalc.data.labels.entry import Timer, entry
from omnicalc.data.labels.key import label_key
from omnicalc.data.labels.label import LabelError
from omnicalc.data.labels.method import Method, labeller, program
from omnicalc.data.labels.store import Store
from omnicalc.errors import InputError
from omnicalc.files import not_writable
from omnicalc.signals import StopWish

if TYPE_CHECKING:
    from ase import Atoms

_STOPPING = (
    "stopping when the next of the structures under way is done, which may take minutes; the same signal once more "
    "ends this at once, without them"
)


@dataclass
class Summary:
    new: int = 0
    there: int = 0  # before this run
    failed: int = 0  # in this run or an earlier one
    stopped: bool = False
    reason: str = ""  # of the first failure

    @property
    def nothing(self) -> bool:
        """Whether every structure failed."""
        return self.failed > 0 and not self.new and not self.there

    def text(self, out: Path) -> str:
        failed = f", {self.failed} without a label, see {out.name}.failures.jsonl" if self.failed else ""
        stopped = "stopped, the same command goes on; " if self.stopped else ""
        return f"{stopped}{self.new} entries new, {self.there} were there{failed}: {out}"


def read_inputs(paths: Sequence[Path], max_atoms: int | None = None) -> list[tuple[str, Atoms]]:
    """Frames of all files with where they stand, checked for charge, spin and periodicity before any is labelled.

    Raises:
        InputError: a file that cannot be read, or a frame that cannot be labelled (named).
    """
    from omnicalc.structure_file import read_structures

    found = []
    for path in paths:
        for k, atoms in enumerate(read_structures(path)):
            where = f"{path}, frame {k}"
            try:
                check_not_periodic(atoms)
                charge_and_unpaired(atoms)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            if max_atoms is None or len(atoms) <= max_atoms:
                found.append((where, atoms))
    if not found:
        raise InputError(f"no structure with at most {max_atoms} atoms in {', '.join(map(str, paths))}")
    return found


def label_all(
    frames: Sequence[tuple[str, Atoms]], method: Method, out: Path, run_all: Callable, progress: Callable
) -> Summary:
    """Label what ``out`` does not hold yet, entry by entry; at the end in the order of the input.

    Args:
        frames: ``(where, atoms)``; atoms.info is kept in the entry.
        run_all: see :func:`omnicalc.data.parallel.runner`.
        progress: called with structures done, structures in all, and a note.
    """
    if out.suffix not in (".extxyz", ".xyz"):  # readers choose the format by the ending
        raise InputError(
            f"--out {out}: entries are written as extended XYZ; let the name end in .extxyz (of which omnicalc data "
            "subset FILE.extxyz --out FILE.aselmdb makes ASE-LMDB)"
        )
    if out.is_dir():
        raise InputError(f"--out {out}: a folder; the name of a file is needed, as in {out / 'labelled.extxyz'}")
    reason = not_writable(out.parent)
    if reason is not None:
        raise InputError(f"--out {out}: {reason}")
    labeller(method), program(method)  # refuse before anything is written when the program is missing
    out.parent.mkdir(parents=True, exist_ok=True)
    store = Store(out, method)
    keys = [label_key(atoms, method.identity) for _, atoms in frames]
    first = {}  # key -> number of the first frame that has it
    for k, key in enumerate(keys):
        first.setdefault(key, k)
    missing = [k for key, k in first.items() if key not in store.keys and key not in store.failures]
    known = [store.failures[key] for key in first if key in store.failures]
    summary = Summary(there=len(first.keys() & store.keys), failed=len(known), reason=known[0] if known else "")
    done, total = len(first) - len(missing), len(first)
    progress(done, total, "")
    with StopWish(_STOPPING) as wish:
        for (k, _), (labelled, why) in run_all(Task(method), [(k, frames[k][1]) for k in missing]):
            if labelled is None:
                store.fail(keys[k], frames[k][0], why)
                summary.failed += 1
                summary.reason = summary.reason or why
            else:
                store.add(labelled)
                summary.new += 1
            done += 1
            progress(done, total, f"{summary.failed} failed" if summary.failed else "")
            if wish.signal is not None and done < total:
                summary.stopped = True
                return summary
    if summary.new:
        store.sort(keys)
    return summary


class Task:
    """Labels one structure; picklable, and sets its program up once per process."""

    def __init__(self, method: Method):
        self._method = method
        self._ready: tuple | None = None

    def __call__(self, numbered: tuple[int, Atoms]) -> tuple[Atoms | None, str]:
        if self._ready is None:
            self._ready = (labeller(self._method), program(self._method))
        label, version = self._ready
        atoms = numbered[1]
        timer = Timer()
        try:
            found = label(atoms)
        except LabelError as error:
            return None, str(error)
        return entry(atoms, found, self._method, version, timer.stop()), ""

    def __getstate__(self) -> dict:
        return {"_method": self._method, "_ready": None}
