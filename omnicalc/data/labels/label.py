"""One label: energy and forces of one structure at one level of theory, and how they came about."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Label:
    """``energy`` in eV (total, not relative to atoms), ``forces`` (n_atoms, 3) in eV/Å."""

    energy: float
    forces: np.ndarray
    notes: dict = field(default_factory=dict)  # what else is written into the entry: cycles, rung of the ladder, ...


class LabelError(Exception):
    """This structure has no label at this level of theory; the message is the reason, and is recorded."""
