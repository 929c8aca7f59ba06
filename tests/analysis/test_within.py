import numpy as np
import pytest

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


def test_nothing_listed_and_nothing_near():
    frame, a, b = listed(UPRIGHT)
    for some, cutoff in ((slice(0, 0), 6.0), (slice(None), 1e-9)):
        places, distances = within(frame, a[some][a[some] != b[some]], b[some][a[some] != b[some]], cutoff)
        assert len(places) == len(distances) == 0
