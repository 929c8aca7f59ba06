"""Small habits that the figures of all analyses share."""

from __future__ import annotations

import numpy as np

OURS, MEASURED = "#1b5faa", "#303030"
_TICKS = 6


def band(axis, x: np.ndarray, y: np.ndarray, stderr: np.ndarray | None, colour: str, label: str | None = None):
    """A line, and its standard error as a shade where there is one."""
    axis.plot(x, y, color=colour, linewidth=1.4, label=label)
    if stderr is not None:
        axis.fill_between(x, y - stderr, y + stderr, color=colour, alpha=0.25, linewidth=0)


def finish(axis, x: str, y: str, legend: bool = False, whole: bool = False) -> None:
    """Labels, few enough ticks that their numbers do not touch, and a legend that stays out of the way.

    A line of one point, which would not show, gets a marker.

    ``whole``: only whole numbers along x.
    """
    from matplotlib.ticker import AutoLocator, MaxNLocator

    if isinstance(axis.xaxis.get_major_locator(), AutoLocator):
        axis.xaxis.set_major_locator(MaxNLocator(_TICKS, steps=[1, 2, 2.5, 5, 10], integer=whole))
    for line in axis.lines:
        if len(line.get_xdata()) == 1 and line.get_marker() == "None":
            line.set_marker("o")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.tick_params(labelsize=8)
    if legend:
        axis.legend(fontsize=7.5, frameon=False)
