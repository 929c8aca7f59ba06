"""The nearest neighbours, which are all that a network with a cap sees."""

import pytest
import torch
from ase.build import bulk

from omnicalc.models.graph import Graph
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems


def nearest(structures, cap: int | None) -> Graph:
    systems = Systems.from_atoms(structures)
    found = neighbors(systems, 5.0)
    vectors = found.vectors(systems.positions, systems.cell, systems.system)
    graph = Graph.build(systems, found, vectors, torch.zeros(systems.n_systems, dtype=torch.int64))
    return graph.nearest(graph.distances < 4.5, cap)


@pytest.mark.parametrize("cap", [1, 10, 20, 30])
def test_equally_distant_ones_are_the_same_in_any_batch(cap):
    """The cap cuts a shell of rock salt (6, 12, 8, 6, 24); the other structure makes the rows longer."""
    salt, dense = bulk("NaCl", "rocksalt", a=4.2, cubic=True), bulk("Cu", "fcc", a=2.2, cubic=True)
    alone, among = nearest([salt], cap), nearest([salt, dense], cap)
    assert torch.equal(among.index[:8], alone.index) and torch.equal(among.shift[:8], alone.shift)
    everything = nearest([salt], None)
    assert torch.equal(everything.index[:, :cap], alone.index)
    assert torch.equal(alone.distances, alone.distances.sort(1).values)


def test_a_cap_beyond_all_neighbours_and_none_at_all():
    salt = bulk("NaCl", "rocksalt", a=4.2, cubic=True)
    assert nearest([salt], 1000).index.shape == nearest([salt], None).index.shape
    far = bulk("Cu", "sc", a=9.0)
    assert nearest([far], 5).index.shape == (1, 0)
