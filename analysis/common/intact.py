"""Whether the molecules of a run stayed what they were: a potential that does not know them may take them apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omnicalc.analysis.geometry import values_of
from omnicalc.analysis.trajectory import open_trajectory

OPEN = 1.5  # times the sum of covalent radii: O-H 1.46 Å, C-C 2.28 Å; thermal motion stays far below


def first_break(path: Path) -> tuple[int, str] | None:
    """The first frame in which a bond of the first frame has opened, and which, in words; None where all hold."""
    from ase.data import atomic_numbers, covalent_radii

    trajectory = open_trajectory(path)
    labels = trajectory.labels
    bonds = labels.bonds
    if not len(bonds):
        return None
    radii = np.array([covalent_radii[atomic_numbers[e]] for e in labels.elements])
    limits = OPEN * radii[bonds].sum(axis=1)
    for frame in trajectory.frames(range(trajectory.n_frames)):
        lengths = values_of(frame, bonds)
        worst = int(np.argmax(lengths / limits))
        if lengths[worst] > limits[worst]:
            a, b = (labels.atom(int(k)) for k in bonds[worst])
            return frame.index, f"the bond {a} - {b} is {lengths[worst]:.2f} Å long"
    return None
