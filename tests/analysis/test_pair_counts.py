import numpy as np
import pytest

from omnicalc.analysis import pair_counts
from omnicalc.analysis.pair_counts import PairCounter

from .test_rdf import TRICLINIC, matrix


@pytest.mark.parametrize("box", [(16.0, 17.0, 18.0, 90.0, 90.0, 90.0), TRICLINIC])
@pytest.mark.parametrize("like", [True, False])
@pytest.mark.parametrize("with_molecules", [True, False])
@pytest.mark.parametrize("reach", [1.5, 6.0])  # few pairs, found by a search, or most of them
def test_all_ways_of_counting_agree(monkeypatch, box, like, with_molecules, reach):
    positions = (np.random.default_rng(0).random((150, 3)) @ matrix(box)).astype(np.float32)
    a = np.arange(0, 90)
    b = a if like else np.arange(90, 150)
    molecules = np.arange(150) // 3 if with_molecules else None
    counts = []
    for at_once in (500_000, 700):  # all at once, or piece by piece
        monkeypatch.setattr(pair_counts, "_AT_ONCE", at_once)
        counts.append(PairCounter(a, b, 0.25, int(reach / 0.25), molecules)(positions, np.array(box)))
    assert np.array_equal(*counts) and counts[0].sum() > 0
    from MDAnalysis.lib.distances import distance_array

    distances = distance_array(positions[a], positions[b], box=np.array(box, dtype=np.float32))
    keep = a[:, None] != b[None, :]
    if with_molecules:
        keep &= molecules[a][:, None] != molecules[b][None, :]
    expected = np.histogram(distances[keep], bins=np.arange(0, reach + 0.1, 0.25))[0]
    assert np.array_equal(counts[0], expected)
