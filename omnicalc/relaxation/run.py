"""All structures, batch by batch, into a folder that is right at every instant.

When a batch is done its structures are appended to structures.xyz and summary.csv, and once these are synced the
restart file says so. While a batch is under way the restart file is written from time to time, with every variable of
the optimisers in it. A run that was killed cuts the files back to what the restart file knows and goes on; batches
are the same each time, so on a CPU the files end with the same bytes.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.batches import batches
from omnicalc.charge_and_spin import charge_and_spin
from omnicalc.errors import InputError, RunError
from omnicalc.md.dynamics import fixed_atoms
from omnicalc.md.files import AppendFile, replace_file
from omnicalc.md.folder import RECORD_FORMAT
from omnicalc.md.job import stress_trained
from omnicalc.md.record import structure_hash, versions
from omnicalc.relaxation.batch import Batch
from omnicalc.relaxation.folder import RelaxFolder
from omnicalc.relaxation.settings import RelaxSettings
from omnicalc.relaxation.walker import Walker
from omnicalc.signals import StopWish
from omnicalc.structure_set import Member, set_hash
from omnicalc.systems import Systems
from omnicalc.unlike_training import warn_if_unlike

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.potential import Potential

COLUMNS = "structure,file,frame,formula,atoms,steps,status,energy_eV,change_eV,fmax_eV_per_A,smax_GPa\n"
_SAVE_EVERY_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a relaxation ended or stopped."""

    structures: int
    done: int
    states: Sequence[str]  # of those that are done, in their order: converged, unconverged, failed, or done
    signal: int | None

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each status."""
        return {state: self.states.count(state) for state in sorted(set(self.states))}

    def with_status(self, status: str) -> list[int]:
        """Numbers of the structures that ended so, from 0."""
        return [k for k, state in enumerate(self.states) if state == status]


class Relaxation:
    """Structures and the potential that relaxes them, checked; nothing is written before :meth:`go`.

    Raises :class:`InputError` naming the structure that cannot be.
    """

    def __init__(
        self,
        members: Sequence[Member],
        potential: Potential,
        settings: RelaxSettings,
        *,
        head: str | None = None,
        charge: int | None = None,
        spin: int | None = None,
    ):
        self.members, self.potential, self.settings = list(members), potential, settings
        if settings.relax_cell and not potential.conservative:
            raise InputError(
                f"the cell needs a stress, which is the derivative of an energy; the forces of "
                f"{potential.name_resolved} are not. Leave --relax-cell out, or use a conservative model (omnicalc "
                "models)"
            )
        self.head = head
        self._charge_given, self._spin_given = charge is not None, spin is not None
        self.systems: list[Systems] = []
        self.fixed: list[np.ndarray] = []
        hashes = []
        for member in self.members:
            try:
                systems, fixed = self._checked(member, charge, spin)
            except InputError as error:
                where = f"{member.file}, frame {member.frame}: " if len(self.members) > 1 else ""
                raise InputError(f"{where}{error}") from None
            self.systems.append(systems)
            self.fixed.append(fixed)
            hashes.append(structure_hash(member.atoms, *charge_and_spin(member.atoms, charge, spin)))
        if self.systems:
            warn_if_unlike(potential, self.head, self.systems)
        self.batches = batches([len(member.atoms) for member in self.members], settings.atoms_per_batch)
        self.record = {
            "format": RECORD_FORMAT,
            "structure": {"count": len(self.members), "sha256": set_hash(hashes)},
            "settings": asdict(settings),
            "model": {
                "name": potential.name_resolved,
                "sha256": potential.sha256,
                "head": self.head,
                "dtype": str(potential.dtype).removeprefix("torch."),
                "device": str(potential.device),
                "kernel": potential.kernel.describe(potential, self.systems[0].numbers),
            },
            "versions": versions(),
        }

    @property
    def stress_trained(self) -> bool:
        """Whether the weights were fitted to stresses."""
        return stress_trained(self.potential)

    def _checked(self, member: Member, charge: int | None, spin: int | None) -> tuple[Systems, np.ndarray]:
        atoms, settings = member.atoms, self.settings
        systems = Systems.from_atoms(atoms, charge=charge, spin=spin)
        self.head = self.potential.choose_head(systems, self.head)
        fixed = fixed_atoms(atoms, settings.fix)
        if settings.relax_cell:
            if not atoms.pbc.all():
                raise InputError(
                    "a cell that relaxes has to be periodic along all three axes; give one with --cell, or leave "
                    "--relax-cell out"
                )
            if len(fixed):
                raise InputError(
                    "a moving cell takes every atom along, so none can be fixed; leave --relax-cell out, or take the "
                    "constraints off"
                )
        return systems, fixed

    def go(
        self,
        folder: RelaxFolder,
        *,
        resume: bool = False,
        progress: Callable[[int, int, str], None] = lambda done, total, note: None,
        tell: Callable[[Walker], None] = lambda walker: None,
        announce: Callable[[], None] = lambda: None,
        save_every_s: float = _SAVE_EVERY_S,
    ) -> Outcome:
        """Relax all, or those that a run in ``folder`` had left; ``tell`` gets each walker when it is done.

        ``progress`` is called after every step: structures done, structures in all, and how far the others are.
        """
        old = folder.read_record() if resume else None
        if old is None:
            folder.check_free()
        else:
            self._check_same(old, folder)
        announce()
        with folder.locked():
            if old is None:
                folder.check_free()
                folder.write_record(self.record)
            restart = _read_restart(folder)
            with (
                AppendFile(folder.results, int(restart["results_bytes"])) as results,
                AppendFile(folder.summary, int(restart["summary_bytes"])) as summary,
                StopWish() as wish,
            ):
                if summary.size == 0:
                    summary.append(COLUMNS.encode())
                files = _Files(folder, results, summary)
                return self._batches(files, restart, wish, progress, tell, save_every_s)

    def _batches(
        self,
        files: _Files,
        restart: Mapping[str, np.ndarray],
        wish: StopWish,
        progress: Callable[[int, int, str], None],
        tell: Callable[[Walker], None],
        save_every_s: float,
    ) -> Outcome:
        first = int(restart["batch"])
        for number in range(first, len(self.batches)):
            members = self.batches[number]
            batch = self._batch(members)
            if number == first and "0/steps" in restart:
                batch.restore(restart)

            def told(done: int, note: str, before: int = members.start) -> None:
                progress(before + done, len(self.members), note)

            after = _AfterStep(batch, number, files, wish, save_every_s, told)
            if not batch.relax(after):
                files.save(number, batch.to_arrays())
                return self._outcome(files, members.start, wish)
            for k, walker in zip(members, batch.walkers, strict=True):
                files.append(walker, k, self.members[k])
                tell(walker)
            files.save(number + 1)
            if wish.signal is not None:
                return self._outcome(files, members.stop, wish)
        return self._outcome(files, len(self.members), wish)

    def _batch(self, members: range) -> Batch:
        walkers = [Walker(self._start(k), self.fixed[k], self.settings) for k in members]
        return Batch(walkers, [self.systems[k] for k in members], self.potential, self.head)

    def _start(self, k: int) -> Atoms:
        """The structure with the charge and spin that were given beside its file, so that results carry them."""
        atoms, systems = self.members[k].atoms.copy(), self.systems[k]
        if self._charge_given:
            atoms.info["charge"] = int(systems.charge[0])
        if self._spin_given:
            atoms.info["spin"] = int(systems.spin[0])
        return atoms

    def _outcome(self, files: _Files, done: int, wish: StopWish) -> Outcome:
        lines = files.folder.summary.read_text(encoding="utf-8").splitlines()[1 : done + 1]
        states = [line.split(",")[-5] for line in lines]  # from the end: a file's name may have commas
        return Outcome(len(self.members), done, states, wish.signal)

    def _check_same(self, old: Mapping, folder: RelaxFolder) -> None:
        now = self.record
        pairs = {f"settings {key}": (old["settings"].get(key), value) for key, value in now["settings"].items()}
        pairs["structures (sha256)"] = old["structure"].get("sha256"), now["structure"]["sha256"]
        for key in ("sha256", "head", "dtype", "device"):
            pairs[f"model {key}"] = old["model"].get(key), now["model"][key]
        different = [f"{name} was {a}, now {b}" for name, (a, b) in pairs.items() if a != b]
        if different:
            raise InputError(
                f"cannot resume {folder.path}, it would not be the same relaxation: {'; '.join(different)}. Give what "
                "it was started with, or choose another folder with --out"
            )


class _Files:
    """What is on the disk."""

    def __init__(self, folder: RelaxFolder, results: AppendFile, summary: AppendFile):
        self.folder, self.results, self.summary = folder, results, summary

    def append(self, walker: Walker, k: int, member: Member) -> None:
        from ase.io import write

        text = io.StringIO()
        write(text, walker.result(), format="extxyz")
        self.results.append(text.getvalue().encode())
        name = f'"{member.file}"' if "," in member.file else member.file
        change = walker.found.energy - walker.first_energy
        status = walker.status if walker.settings.steps or walker.status == "failed" else "done"
        line = (
            f"{k},{name},{member.frame},{member.atoms.get_chemical_formula()},{len(member.atoms)},{walker.steps},"
            f"{status},{walker.found.energy:.8f},{change:.8f},{walker.fmax:.6f},{walker.smax_GPa:.6f}\n"
        )
        self.summary.append(line.encode())

    def save(self, batch: int, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Everything so far is done up to ``batch``, of which ``arrays`` are under way."""
        self.results.sync()
        self.summary.sync()
        buffer = io.BytesIO()
        sizes = {"results_bytes": np.array(self.results.size), "summary_bytes": np.array(self.summary.size)}
        np.savez(buffer, batch=np.array(batch), **sizes, **(arrays or {}))
        replace_file(self.folder.restart, buffer.getvalue())


class _AfterStep:
    """After each step of a batch: the restart file where it is due, and how far it is; whether to stop."""

    def __init__(
        self, batch: Batch, number: int, files: _Files, wish: StopWish, every_s: float, told: Callable[[int, str], None]
    ):
        self.batch, self.number, self.files, self.wish, self.every_s = batch, number, files, wish, every_s
        self.told = told
        self.saved = time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.saved >= self.every_s:
            self.files.save(self.number, self.batch.to_arrays())
            self.saved = time.monotonic()
        left = [walker for walker in self.batch.walkers if not walker.status]
        self.told(len(self.batch.walkers) - len(left), f"step {left[0].steps}" if left else "")
        return self.wish.signal is not None


def _read_restart(folder: RelaxFolder) -> dict[str, np.ndarray]:
    """The restart file; that of a start where there is none. Raises :class:`RunError` when it is damaged."""
    if not folder.restart.exists():
        return {name: np.array(0) for name in ("batch", "results_bytes", "summary_bytes")}
    try:
        with np.load(folder.restart, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{folder.restart} cannot be read: {error}; remove it to begin anew in this folder, or choose another with "
            "--out"
        ) from error
