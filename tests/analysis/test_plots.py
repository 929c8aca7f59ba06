"""Habits of the figures."""

import numpy as np
import pytest

from omnicalc.analysis import densities, hydrogen_bonds
from omnicalc.analysis.plots import finish

from .conftest import waters


def test_a_line_of_one_point_gets_a_marker():
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    axis.plot([1.0], [2.0])
    axis.plot([1.0, 2.0], [2.0, 3.0])
    axis.plot([1.0], [2.0], marker="x")
    finish(axis, "x", "y")
    assert [line.get_marker() for line in axis.lines] == ["o", "None", "x"]


@pytest.mark.parametrize("function", [hydrogen_bonds, densities])
def test_one_frame_shows(write_traj, function):
    elements, positions = waters(3, 8.4, np.random.default_rng(0))
    figure = function(write_traj(elements, positions[None], (8.4, 8.4, 8.4, 90.0, 90.0, 90.0))).plot()
    for axis in figure.axes:
        points = [line for line in axis.lines if len(line.get_xdata()) == 1]
        assert points and all(line.get_marker() == "o" for line in points)
