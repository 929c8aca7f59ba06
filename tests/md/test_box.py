import numpy as np
import pytest
from ase.geometry import cellpar_to_cell, find_mic

from omnicalc.md.box import VACUUM, standard_box

TRICLINIC = cellpar_to_cell([9.0, 10.0, 11.0, 80.0, 95.0, 110.0])


def rotation(seed: int = 0) -> np.ndarray:
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return q * np.linalg.det(q)


def test_nothing_periodic_has_no_box():
    assert standard_box(np.diag([9.0, 9, 9]), np.array([False] * 3)) is None


def test_standard_cells_are_not_turned():
    box = standard_box(TRICLINIC, np.array([True] * 3))
    assert box.rotation is None
    assert box.dimensions == pytest.approx([9, 10, 11, 80, 95, 110], abs=1e-12)
    assert list(standard_box(np.diag([9.0, 8, 7]), np.array([True] * 3)).dimensions) == [9, 8, 7, 90, 90, 90]


@pytest.mark.parametrize("hand", [1, -1])
def test_turned_cells_keep_all_periodic_distances(hand):
    """Distances between periodic images from the written box alone are those of the structure."""
    cell = TRICLINIC @ rotation()
    cell[2] *= hand
    positions = np.random.default_rng(1).uniform(-15, 15, (20, 3))
    box = standard_box(cell, np.array([True] * 3))
    assert box.rotation is not None and np.linalg.det(box.rotation) == pytest.approx(1)
    written, turned = cellpar_to_cell(box.dimensions), box.orient(positions)

    def distances(x, c):
        i, j = np.triu_indices(len(x), 1)
        return find_mic(x[i] - x[j], c)[1]

    assert distances(turned, written) == pytest.approx(distances(positions, cell), abs=1e-9)
    if hand == 1:  # the wrong variant: positions left as they were
        assert np.abs(distances(positions, written) - distances(positions, cell)).max() > 0.1


def test_missing_vectors_of_a_slab_become_vacuum():
    box = standard_box(np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0, 0, 0]]), np.array([True, True, False]))
    assert box.dimensions[2] == VACUUM and box.dimensions[3:5] == pytest.approx([90, 90])


@pytest.mark.parametrize("flat", [[0, 9.0, 9.0], [0, -4.0, 0], [1e-9, 5.0, 1.0]])
def test_a_vector_that_the_periodic_ones_span_becomes_vacuum(flat):
    """Beside the slab's own two it says nothing; distances written are those of the structure."""
    cell, pbc = np.array([[0, 9.0, 0], [0, 0, 9.0], flat]), np.array([True, True, False])
    box = standard_box(cell, pbc)
    assert box.dimensions == pytest.approx([9, 9, VACUUM, 90, 90, 90])
    positions = np.random.default_rng(1).uniform(0, 9, (5, 3))
    turned = box.orient(positions)
    assert np.linalg.norm(turned[:, None] - turned, axis=2) == pytest.approx(
        np.linalg.norm(positions[:, None] - positions, axis=2)
    )


def test_vectors_that_help_stay():
    box = standard_box(np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0.5, 0, 7.0]]), np.array([True, False, False]))
    assert box.rotation is None and box.dimensions[:3] == pytest.approx([5, 37**0.5, 49.25**0.5])
