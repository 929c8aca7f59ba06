"""Labelled structures as they stand in files: ``ase.Atoms`` with results, level of theory, program and timing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from omnicalc.data.labels.electrons import charge_and_unpaired
from omnicalc.data.labels.key import label_key

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.data.labels.label import Label
    from omnicalc.data.labels.method import Method


class Timer:
    """Wall time and processor time in seconds from its making to :meth:`stop`."""

    def __init__(self):
        self._start = (time.perf_counter(), time.process_time())
        self.wall = self.cpu = 0.0

    def stop(self) -> Timer:
        self.wall, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        return self


_OF_A_LABEL = ("settings", "scf_rung", "s_squared")


def entry(atoms: Atoms, label: Label, method: Method, program: str, timer: Timer) -> Atoms:
    """A copy of ``atoms`` with energy (eV) and forces (eV/Å) as results, and where they come from in ``info``."""
    from ase.calculators.singlepoint import SinglePointCalculator

    labelled = atoms.copy()
    for key in _OF_A_LABEL:  # of an earlier label at another level
        labelled.info.pop(key, None)
    labelled.positions = labelled.positions.round(8)  # what the file keeps, so that the key outlives it
    charge, unpaired = charge_and_unpaired(atoms)
    labelled.info |= {
        "charge": charge,
        "spin": unpaired + 1,
        "level_of_theory": method.name,
        "program": program,
        "seconds": round(timer.wall, 4),
        "cpu_seconds": round(timer.cpu, 4),
        "key": label_key(labelled, method.identity),
        **label.notes,
    }
    labelled.calc = SinglePointCalculator(labelled, energy=label.energy, forces=label.forces)
    return labelled
