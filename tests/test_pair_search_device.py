"""The search on a device finds what the other one finds, in the same order."""

import numpy as np
import pytest
import torch

from omnicalc.pair_search import search_pairs
from omnicalc.pair_search_device import bins_of, search_on_device

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CELLS = {"box": np.diag([17.0, 19.0, 18.0]), "skewed": np.array([[18.0, 0, 0], [5, 17, 0], [-4, 3, 19.0]])}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_equals_the_other_search(cell):
    """Atoms far outside the cell, and one on a face, too."""
    positions = np.random.default_rng(0).uniform(-30, 40, (300, 3))
    positions[0] = 0.0
    wanted = search_pairs(positions, cell, np.array([True] * 3), 5.2)
    box = torch.from_numpy(cell).to(DEVICE)
    bins = bins_of(box, torch.tensor([True] * 3), 5.2)
    found = search_on_device(torch.from_numpy(positions).to(DEVICE), box, bins, 5.2)
    assert len(wanted[0]) > 3000
    for a, b in zip(found, wanted, strict=True):
        assert np.array_equal(a.cpu().numpy(), b)


def test_cells_it_is_not_for():
    box = torch.from_numpy(CELLS["box"])
    assert bins_of(box, torch.tensor([True, True, False]), 5.0) is None
    assert bins_of(box, torch.tensor([True] * 3), 6.0) is None
    assert bins_of(box, torch.tensor([True] * 3), 4.0) == [4, 4, 4]
