import numpy as np
import pytest

from omnicalc.analysis.cells import volume_and_heights
from omnicalc.analysis.geometry import values_of
from omnicalc.analysis.native import library
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.within import within

UPRIGHT = np.array([17.3, 19.1, 23.7, 90.0, 90.0, 90.0])
TILTED = np.array([17.3, 19.1, 23.7, 80.0, 95.0, 70.0])


def listed(box, n=5000, seed=3):
    """A frame of atoms in and around a box, and a list of pairs of them."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-40, 60, (300, 3)).astype(np.float32)
    a, b = rng.integers(0, 300, (2, n))
    return Frame(0, x, box), a, b


@pytest.mark.parametrize("switch", ["1", "0"])
@pytest.mark.parametrize("box", [UPRIGHT, TILTED, None])
def test_equal_to_all_distances(monkeypatch, switch, box):
    from MDAnalysis.lib.distances import distance_array

    monkeypatch.setenv(library.SWITCH, switch)
    frame, a, b = listed(box)
    cutoff = 6.0 if box is not None else 40.0
    every = distance_array(frame.positions, frame.positions, box=box)[a, b]
    places, distances = within(frame, a, b, cutoff)
    assert np.array_equal(places, np.flatnonzero(every <= cutoff)) and 50 < len(places) < len(a)
    assert np.allclose(distances, every[places], rtol=0, atol=1e-12)
    if box is not None:
        longer = Frame(0, frame.positions, box * [1.01, 1, 1, 1, 1, 1])
        assert not np.array_equal(places, within(longer, a, b, cutoff)[0]), "a wrong box would be seen"


FAR_FROM_COMPACT = [[11, 25, 31, 80, 25, 88], [9, 30, 30, 90, 150, 90], [9, 40, 30, 90, 90, 12]]


@pytest.mark.parametrize("box", FAR_FROM_COMPACT)
def test_nearest_images_at_any_distance(box):
    """Against all images within six cells, where MDAnalysis with the box as it is misses some."""
    from MDAnalysis.lib.distances import calc_bonds
    from MDAnalysis.lib.mdamath import triclinic_vectors

    box = np.array(box, dtype=np.float64)
    rows = triclinic_vectors(box, dtype=np.float64)
    images = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3) @ rows
    fractions = np.random.default_rng(0).random((2, 100, 3))
    apart = fractions[1] - fractions[0]
    apart = (apart - np.round(apart)) @ rows
    every = np.linalg.norm(apart[:, None] + images, axis=2).min(1)
    frame = Frame(0, (fractions.reshape(-1, 3) @ rows).astype(np.float32), box)
    a, b = np.arange(100), np.arange(100, 200)
    assert np.allclose(within(frame, a, b, np.inf)[1], every, rtol=0, atol=1e-4)
    wrong = calc_bonds(frame.positions[a], frame.positions[b], box=box)
    assert (wrong - every).max() > 0.1


def test_the_compact_cell_is_the_same_structure():
    """Angles and the signs of dihedrals too; a cell that is compact stays as it is."""
    box = np.array(FAR_FROM_COMPACT[0], dtype=np.float64)
    x = np.array([[1.0, 1, 1], [2, 1, 1], [2.5, 2, 1], [3, 2.5, 2]], dtype=np.float32)
    frame, alone = Frame(0, x, box), Frame(0, x, None)
    for atoms in ([[0, 1, 2]], [[0, 1, 2, 3]]):
        assert values_of(frame, np.array(atoms)) == pytest.approx(values_of(alone, np.array(atoms)), abs=1e-3)
    positions, found = frame.compact
    assert np.prod(found[:3]) < 0.5 * np.prod(box[:3]) and volume_and_heights(found)[0] == pytest.approx(frame.volume)
    for same in (UPRIGHT, None, np.array([15.0, 15, 15, 60, 60, 90])):
        assert Frame(0, x, same).compact[0] is x and Frame(0, x, same).compact[1] is same


def test_nothing_listed_and_nothing_near():
    frame, a, b = listed(UPRIGHT)
    for some, cutoff in ((slice(0, 0), 6.0), (slice(None), 1e-9)):
        places, distances = within(frame, a[some][a[some] != b[some]], b[some][a[some] != b[some]], cutoff)
        assert len(places) == len(distances) == 0
