"""Trajectories made on the spot."""

import warnings
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write_traj(tmp_path):
    """write_traj(elements, positions (F, N, 3), boxes (F, 6) or (6,) or None, name) -> path of a trajectory.

    A topology.pdb is put beside it (``topology=False`` leaves it out).
    """

    def write(elements, positions, boxes, name="traj.dcd", topology=True) -> Path:
        from ase import Atoms
        from ase.io import write as ase_write

        positions = np.asarray(positions, dtype=float)
        if boxes is not None:
            boxes = np.broadcast_to(np.asarray(boxes, dtype=float), (len(positions), 6))
        path = tmp_path / name
        if topology:
            ase_write(tmp_path / "topology.pdb", Atoms(list(elements), positions=positions[0] % 90))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import MDAnalysis

            universe = MDAnalysis.Universe.empty(len(elements), trajectory=True)
            with MDAnalysis.Writer(str(path), len(elements)) as writer:
                for k, frame in enumerate(positions):
                    universe.atoms.positions = frame
                    universe.dimensions = None if boxes is None else boxes[k]
                    writer.write(universe.atoms)
        return path

    return write


def waters(n_side: int, box: float, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Water-shaped molecules at random orientations on a grid: elements and positions (N, 3) Å."""
    spacing = box / n_side
    shape = np.array([[0.0, 0.0, 0.0], [0.957, 0.0, 0.0], [-0.240, 0.927, 0.0]])
    positions = []
    for corner in np.ndindex(n_side, n_side, n_side):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        positions.append((np.array(corner) + 0.5) * spacing + shape @ turn)
    return ["O", "H", "H"] * n_side**3, np.concatenate(positions)
