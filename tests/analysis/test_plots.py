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


def test_a_long_line_is_thinned_and_keeps_what_shows():
    from matplotlib.figure import Figure

    y = np.random.default_rng(0).normal(size=500_003)
    y[[123_456, 400_000]] = 9.0, -9.0
    axis = Figure().subplots()
    axis.plot(np.arange(len(y)), y)
    axis.plot(np.arange(len(y)), y, ".", linestyle="None")
    finish(axis, "x", "y")
    drawn, points = (line.get_xydata() for line in axis.lines)
    assert len(drawn) < 25_000 and len(points) == len(y)
    assert (np.diff(drawn[:, 0]) > 0).all() and drawn[[0, -1], 0].tolist() == [0, len(y) - 1]
    assert {(123_456, 9.0), (400_000, -9.0)} <= set(map(tuple, drawn))
    assert np.array_equal(drawn[:, 1], y[drawn[:, 0].astype(int)])
