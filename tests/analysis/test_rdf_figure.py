import io
import sys
import warnings

import numpy as np
import pytest

from omnicalc.analysis.rdf import radial_distributions

from .conftest import waters


@pytest.fixture
def path(write_traj):
    rng = np.random.default_rng(0)
    frames = [waters(3, 9.3, rng) for _ in range(10)]
    return write_traj(frames[0][0], [f[1] for f in frames], (9.3,) * 3 + (90.0,) * 3)


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(png), format="png")[..., :3]


@pytest.mark.parametrize("label", ["plain", "_hidden", "cost $5 and $\\frac{$", "水/traj.dcd", "%s {0}", "-"])
def test_any_label_is_drawn_without_a_warning(path, label):
    rdfs = radial_distributions(path, label=label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = pixels(rdfs.png_bytes())
    assert image.shape[1] > 2.5 * image.shape[0] / 2, "three panels beside each other"
    assert "matplotlib.pyplot" not in sys.modules or plt_has_no_figures()


def plt_has_no_figures() -> bool:
    return not sys.modules["matplotlib.pyplot"].get_fignums()


def test_every_curve_is_there(path):
    """Blue, grey and green are drawn: g, the experiment, the coordination number."""
    image = pixels(radial_distributions(path).png_bytes())
    for colour in ((0x1B, 0x5F, 0xAA), (0x30, 0x30, 0x30), (0x3F, 0x8F, 0x4F)):
        near = np.abs(image - np.array(colour) / 255).max(axis=-1) < 0.03
        assert near.sum() > 20, colour
    orange = np.abs(image - np.array([0xD1, 0x65, 0x1A]) / 255).max(axis=-1) < 0.03
    assert orange.sum() == 0, "nothing was compared"
