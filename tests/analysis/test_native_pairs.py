"""The native counter of distances: the same counts as MDAnalysis, to the last one."""

import numpy as np
import pytest

from omnicalc.analysis.native import library
from omnicalc.analysis.pair_counts import PairCounter

BOX = np.array([17.3, 19.1, 23.7, 90.0, 90.0, 90.0])
native = pytest.mark.skipif(library.counter() is None, reason="the native counter was not built (no C++ compiler)")


def positions(n: int, seed: int = 1) -> np.ndarray:
    """Atoms in and around a box, some several boxes away."""
    rng = np.random.default_rng(seed)
    inside = rng.uniform(0, 1, (n, 3)) * BOX[:3]
    return (inside + BOX[:3] * rng.integers(-2, 3, (n, 3))).astype(np.float32)


def both(monkeypatch, centres, partners, molecules=None, bin_width=0.02, n=430):
    """Counts by the native counter and by MDAnalysis."""
    found = []
    x = positions(3000)
    for switch in ("1", "0"):
        monkeypatch.setenv(library.SWITCH, switch)
        counter = PairCounter(centres, partners, bin_width, n, molecules)
        assert (counter._native is None) == (switch == "0")
        found.append(counter(x, BOX))
    return found


@native
@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("whole", [False, True])
def test_equal_to_mdanalysis(monkeypatch, threads, whole):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    oxygens, hydrogens = np.arange(0, 3000, 3), np.setdiff1d(np.arange(3000), np.arange(0, 3000, 3))
    molecules = None if whole else np.arange(3000) // 3
    for centres, partners in ((oxygens, oxygens), (oxygens, hydrogens), (hydrogens, hydrogens)):
        ours, theirs = both(monkeypatch, centres, partners, molecules)
        assert np.array_equal(ours, theirs) and ours.sum() > 100_000


@native
def test_a_wrong_image_would_be_seen(monkeypatch):
    """The check above can fail: a box 1 % too long gives other counts."""
    some = np.arange(500)
    monkeypatch.setenv(library.SWITCH, "1")
    counter = PairCounter(some, some, 0.02, 430)
    x = positions(3000)
    longer = BOX.copy()
    longer[0] *= 1.01
    assert not np.array_equal(counter(x, BOX), counter(x, longer))


@native
def test_few_atoms_and_short_reach(monkeypatch):
    few = np.arange(7)
    for n in (10, 430):
        ours, theirs = both(monkeypatch, few, few, n=n)
        assert np.array_equal(ours, theirs)


@native
def test_a_tilted_box_is_left_to_mdanalysis(monkeypatch):
    some, tilted = np.arange(400), np.array([17.3, 19.1, 23.7, 80.0, 95.0, 70.0])
    x = positions(400)
    found = []
    for switch in ("1", "0"):
        monkeypatch.setenv(library.SWITCH, switch)
        found.append(PairCounter(some, some, 0.02, 300)(x, tilted))
    assert np.array_equal(*found)


def test_without_a_library(monkeypatch):
    monkeypatch.setattr(library, "usable_sets", lambda source: [])
    library._loaded.cache_clear()
    try:
        assert library.counter() is None
        assert PairCounter(np.arange(5), np.arange(5), 0.1, 50)._native is None
    finally:
        library._loaded.cache_clear()


@native
def test_a_stale_library_is_not_used(monkeypatch):
    monkeypatch.setattr("omnicalc.kernels.native.library.source_hash", lambda source: "other")
    library._loaded.cache_clear()
    try:
        assert library.counter() is None
    finally:
        library._loaded.cache_clear()


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert library.threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert library.threads() >= 1
