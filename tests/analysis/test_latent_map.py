"""Maps of embeddings: known geometry comes out, and what an embedding holds is measured on held-out structures."""

import numpy as np
import pytest
from matplotlib.image import imread

from omnicalc.analysis.latent_map import coordinates, draw_map, explained
from omnicalc.errors import InputError

RNG = np.random.default_rng(0)


def test_principal_components_are_found():
    """Two strong directions in ten dimensions, whatever rotation hides them; the split is clean."""
    hidden = np.c_[np.repeat([-3.0, 3.0], 40), RNG.normal(size=80)]
    mixed = hidden @ RNG.normal(size=(2, 10)) + 0.01 * RNG.normal(size=(80, 10))
    points, what = coordinates(mixed)
    assert points.shape == (80, 2) and "100 %" in what
    recovered = np.linalg.lstsq(np.c_[points, np.ones(80)], hidden, rcond=None)
    assert recovered[1].max() < 1.0  # the plane is that of the hidden variables
    again, _ = coordinates(mixed)
    assert np.array_equal(points, again)


def test_explained_is_measured_out_of_sample():
    vectors = RNG.normal(size=(120, 6))
    value = vectors @ RNG.normal(size=6)
    assert explained(vectors, value) > 0.99
    assert explained(RNG.normal(size=(120, 100)), value) < 0.2  # many random numbers explain nothing held out


def test_figure_and_errors(tmp_path):
    sets = {"a": RNG.normal(size=(30, 5)), "b": RNG.normal(size=(30, 5))}
    found = draw_map(tmp_path / "map.png", sets, {"atoms": np.arange(30.0), "gap (eV)": RNG.normal(size=30)})
    assert found["b"].shape == (30, 2)
    assert imread(tmp_path / "map.png")[..., :3].std() > 0.01
    with pytest.raises(InputError, match="2 structures given; a map needs at least 3"):
        coordinates(np.zeros((2, 4)))
    with pytest.raises(InputError, match="pca, umap"):
        coordinates(np.zeros((9, 4)), "tsne")
