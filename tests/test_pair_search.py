"""The search itself: order, huge shifts, bad positions. Completeness is checked in test_neighbors.py."""

import ctypes

import numpy as np
import pytest

from omnicalc.errors import InputError
from omnicalc.pair_search import search_molecules, search_pairs

ALL = np.ones(3, dtype=bool)


def keys(i, j, n):
    return list(zip(i.tolist(), j.tolist(), *n.T.tolist(), strict=True))


def test_canonical_order():
    positions = np.random.default_rng(0).uniform(0, 4, (5, 3))
    found = keys(*search_pairs(positions, np.eye(3) * 4.0, ALL, 5.0))
    assert len(found) > 100 and found == sorted(found) and len(set(found)) == len(found)


def test_the_order_does_not_need_small_shifts():
    """Shifts whose combined key would overflow 64 bits take the other way of sorting, to the same order."""
    rng = np.random.default_rng(1)
    positions = rng.uniform(0, 4, (4, 3))
    away = rng.integers(-(10**6), 10**6, (4, 3)).astype(float)
    near = keys(*search_pairs(positions, np.eye(3) * 4.0, ALL, 5.0))
    i, j, n = search_pairs(positions + away * 4.0, np.eye(3) * 4.0, ALL, 5.0)
    assert keys(i, j, n) == sorted(keys(i, j, n))
    assert sorted(keys(i, j, n - away[i] + away[j])) == near


def test_every_pair_has_its_reverse():
    positions = np.random.default_rng(2).uniform(0, 4, (6, 3))
    i, j, n = search_pairs(positions, np.diag([4.0, 5.0, 0.0]), np.array([True, True, False]), 4.0)
    assert sorted(keys(i, j, n)) == sorted(keys(j, i, -n))


def test_molecules_are_searched_to_the_same_bits():
    rng, counts = np.random.default_rng(3), np.array([1, 7, 0, 2, 30, 1])
    positions = rng.uniform(0, 6, (counts.sum(), 3))
    positions[1:3] = [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]  # at exactly the cutoff: out
    found, first, nowhere = [], 0, np.zeros(3, dtype=bool)
    for count in counts:
        i, j, n = search_pairs(positions[first : first + count], np.zeros((3, 3)), nowhere, 3.0)
        found.append((i + first, j + first, n))
        first += count
    for one, other in zip(map(np.concatenate, zip(*found, strict=True)), search_molecules(positions, counts, 3.0),
                          strict=True):  # fmt: skip
        assert one.dtype == other.dtype and one.shape == other.shape and (one == other).all()
    i, j, _ = search_molecules(positions, counts, 3.0)
    assert len(i) > 100 and (1, 2) not in set(zip(i.tolist(), j.tolist(), strict=True))
    with pytest.raises(InputError, match="position of atom 4"):
        search_molecules(np.where(np.arange(41)[:, None] == 4, np.nan, positions), counts, 3.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite(value):
    positions = np.zeros((3, 3))
    positions[1, 0] = value
    with pytest.raises(InputError, match="position of atom 1"):
        search_pairs(positions, np.eye(3), ALL, 1.0)


@pytest.mark.skipif(not hasattr(ctypes, "_pointer_type_cache"), reason="of another Python")
def test_searches_leave_no_types_behind():
    """What Python keeps for every number of pairs grows without end in long runs."""
    positions = np.random.default_rng(2).uniform(0, 9, (40, 3))

    def found(cutoff: float) -> int:
        return len(search_pairs(positions, np.eye(3) * 9.0, ALL, cutoff)[0])

    found(1.5)
    before = len(ctypes._pointer_type_cache)
    assert len({found(cutoff) for cutoff in np.linspace(2, 4, 20)}) == 20
    assert len(ctypes._pointer_type_cache) == before
