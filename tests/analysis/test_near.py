import resource
from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii

from omnicalc.analysis import near
from omnicalc.analysis.molecules import guess_bonds
from omnicalc.analysis.near import NearPairs
from omnicalc.analysis.trajectory import Frame
from omnicalc.errors import InputError

from .test_rdf import TRICLINIC, matrix

CUBE = (15.0, 15.0, 15.0, 90.0, 90.0, 90.0)


def frames(box, step, n=60, atoms=120, seed=0, scale=0.0):
    """Atoms that walk through a box, wrapped at random, in a box that may breathe."""
    rng = np.random.default_rng(seed)
    x = rng.random((atoms, 3)) @ matrix(box)
    for k in range(n):
        factor = 1.0 + scale * rng.normal()
        now = np.array(box) * [factor, factor, factor, 1, 1, 1]
        x = x + step * rng.normal(size=x.shape)
        images = rng.integers(-1, 2, size=x.shape) if k % 7 == 0 else 0
        yield Frame(k, (x * factor + images @ matrix(now) if np.ndim(images) else x * factor).astype(np.float32), now)


def by_brute_force(frame, a, b, cutoff):
    from MDAnalysis.lib.distances import distance_array

    d = distance_array(frame.positions[a], frame.positions[b], box=frame.box)
    i, j = np.nonzero((d <= cutoff) & (a[:, None] != b[None, :]))
    return set(zip(i.tolist(), j.tolist(), strict=True))


@pytest.mark.parametrize("few", [0, 20_000])
@pytest.mark.parametrize("box", [CUBE, TRICLINIC])
@pytest.mark.parametrize(("step", "scale", "shared"), [(0.02, 0.0, True), (0.6, 0.0, False), (0.02, 0.01, False)])
def test_every_pair_is_found_in_every_frame(box, step, scale, shared, few, monkeypatch):
    monkeypatch.setattr(near, "_FEW", few)
    a, b = np.arange(0, 40), np.arange(20, 120)
    pairs = NearPairs(a, b, 3.0)
    searches = []
    search = NearPairs._search
    monkeypatch.setattr(NearPairs, "_search", lambda self, frame: searches.append(frame.index) or search(self, frame))
    for frame in frames(box, step, scale=scale):
        i, j, d = pairs(frame)
        assert set(zip(i.tolist(), j.tolist(), strict=True)) == by_brute_force(frame, a, b, 3.0)
        assert (d <= 3.0).all()
    assert (len(searches) < 30) == shared and (pairs._skin > 0) == shared


def test_a_search_that_is_kept_too_long_loses_pairs(monkeypatch):
    monkeypatch.setattr(NearPairs, "_usable", lambda self, frame: self._then is not None)
    a = np.arange(120)
    pairs = NearPairs(a, a, 3.0)
    lost = [len(by_brute_force(frame, a, a, 3.0)) - len(pairs(frame)[0]) for frame in frames(CUBE, 0.1)]
    assert lost[0] == 0 and lost[-1] > 0


def test_molecules_and_small_boxes():
    frame = next(frames(CUBE, 0.0))
    a, molecules = np.arange(120), np.arange(120) // 3
    i, j, _ = NearPairs(a, a, 6.9, molecules)(frame)
    assert (molecules[i] != molecules[j]).all()
    assert len(i) > 0 and near.SKIN + 6.9 > 7.5, "no room for a skin, and none is taken"
    with pytest.raises(InputError, match="beyond 7.500 Å"):
        NearPairs(a, a, 7.6)(frame)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of this process is asked of Linux")
@pytest.mark.parametrize("count", [120, 700])
def test_atoms_that_flew_away_take_no_memory(count):
    """As molecules that have left a droplet; a grid over all that lies between would take 8 GiB."""
    positions = np.random.default_rng(0).uniform(0.0, 20.0, (count, 3)).astype(np.float32)
    positions[-3:, 0] += 6000.0
    limit = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 30), limit[1]))
        i, j, distances = NearPairs(np.arange(count), np.arange(count), 3.5)(Frame(0, positions, None))
        bonds = guess_bonds(positions, np.full(count, "O"), None)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    every = np.linalg.norm(positions[:, None].astype(float) - positions, axis=2)
    near = (every <= 3.5) & ~np.eye(count, dtype=bool)
    assert np.array_equal(np.argwhere(near), np.stack([i, j], axis=1))
    assert distances == pytest.approx(every[i, j], abs=1e-4)
    assert np.array_equal(bonds, np.argwhere(np.triu(every < 2.5 * covalent_radii[8], k=1)))
