"""Small habits that the figures of all analyses share."""

from __future__ import annotations

import numpy as np

OURS, MEASURED = "#1b5faa", "#303030"
_TICKS = 6
_MOST_POINTS = 20_000  # of a line: a figure shows no more, and drawing stays quick


def band(axis, x: np.ndarray, y: np.ndarray, stderr: np.ndarray | None, colour: str, label: str | None = None):
    """A line, and its standard error as a shade where there is one."""
    axis.plot(x, y, color=colour, linewidth=1.4, label=label)
    if stderr is not None:
        axis.fill_between(x, y - stderr, y + stderr, color=colour, alpha=0.25, linewidth=0)


def finish(axis, x: str, y: str, legend: bool = False, whole: bool = False) -> None:
    """Labels, few enough ticks that their numbers do not touch, and a legend that stays out of the way.

    A line of one point, which would not show, gets a marker; of a long line no more is drawn than shows.

    ``whole``: only whole numbers along x.
    """
    from matplotlib.ticker import AutoLocator, MaxNLocator

    if isinstance(axis.xaxis.get_major_locator(), AutoLocator):
        axis.xaxis.set_major_locator(MaxNLocator(_TICKS, steps=[1, 2, 2.5, 5, 10], integer=whole))
    for line in axis.lines:
        if len(line.get_xdata()) == 1 and line.get_marker() == "None":
            line.set_marker("o")
        if line.get_linestyle() != "None":
            line.set_data(*_thinned(*line.get_data(orig=False)))
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.tick_params(labelsize=8)
    if legend:
        axis.legend(fontsize=7.5, frameon=False)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a long line (n,) the ends, and the lowest and the highest point of every stretch: it looks the same."""
    if len(y) <= _MOST_POINTS:
        return x, y
    stretch = -(-2 * len(y) // _MOST_POINTS)
    rows = y[: len(y) // stretch * stretch].reshape(-1, stretch)
    extremes = np.concatenate([rows.argmin(axis=1), rows.argmax(axis=1)]) + np.tile(np.arange(len(rows)) * stretch, 2)
    kept = np.union1d(extremes, [0, *range(rows.size, len(y)), len(y) - 1])
    return x[kept], y[kept]
