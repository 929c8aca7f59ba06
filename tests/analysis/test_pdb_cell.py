"""Cells of PDB files with many models."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from omnicalc.analysis import as_trajectory
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import InputError

CUBE = (9.6, 9.6, 9.6, 90.0, 90.0, 90.0)


@pytest.fixture
def models(tmp_path):
    """A file with one CRYST1 above its first model, as MDAnalysis writes it; another cell may take its place."""

    def make(cell=None):
        import MDAnalysis

        write(tmp_path / "one.pdb", Atoms("ArO", positions=[[0.5, 1, 1], [9.4, 1, 1]], cell=[9.6] * 3, pbc=True))
        path = tmp_path / "models.pdb"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = MDAnalysis.Universe(str(tmp_path / "one.pdb"))
            with MDAnalysis.Writer(str(path), multiframe=True) as writer:
                for _ in range(3):
                    writer.write(universe.atoms)
        text = path.read_text()
        assert text.count("CRYST1") == 1 and text.count("MODEL ") == 3
        if cell is not None:
            path.write_text(text.replace("    9.600    9.600    9.600  90.00  90.00  90.00", cell))
        return path

    return make


def test_a_cell_above_the_models_is_that_of_all_frames(models):
    from MDAnalysis import Universe

    path = models()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = Universe(str(path))
    assert universe.dimensions is None, "the reader does not look there"
    for trajectory in (open_trajectory(path), as_trajectory(universe)):
        boxes = [frame.box for frame in trajectory.frames(trajectory.select())]
        assert len(boxes) == 3 and np.allclose(boxes, CUBE)


def test_a_placeholder_is_no_cell_and_nonsense_an_error(models):
    placeholder = "    1.000    1.000    1.000  90.00  90.00  90.00"
    trajectory = open_trajectory(models(placeholder))
    assert [frame.box for frame in trajectory.frames(trajectory.select())] == [None] * 3
    with pytest.raises(InputError, match=r"models\.pdb: .* is no CRYST1 record"):
        open_trajectory(models("    9.6oo    9.600    9.600  90.00  90.00  90.00"))
