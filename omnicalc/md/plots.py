"""Energy and temperature of a run over time, drawn from its log."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from omnicalc.md.files import replace_file

_MOST_POINTS = 20_000  # a longer log is thinned: a figure shows no more, and drawing stays quick


def draw(
    log: Path, energy_plot: Path, temperature_plot: Path, *, n_atoms: int, target_K: float | None
) -> None:
    """Write both figures (PNG) from log.csv; ``target_K``: the bath's temperature, None without a bath."""
    rows = np.loadtxt(log, delimiter=",", skiprows=1, ndmin=2)
    rows = rows[:: max(1, len(rows) // _MOST_POINTS)]
    ps = rows[:, 1] / 1000
    _energy(ps, rows, n_atoms, energy_plot)
    _temperature(ps, rows[:, 5], target_K, temperature_plot)


def _energy(ps: np.ndarray, rows: np.ndarray, n_atoms: int, path: Path) -> None:
    figure, axes = _figure(3)
    for axis, (name, column) in zip(axes, (("potential", 2), ("kinetic", 3), ("total", 4)), strict=True):
        axis.plot(ps, 1000 * (rows[:, column] - rows[0, column]) / n_atoms, linewidth=0.8)
        axis.set_ylabel(f"{name}\n(meV/atom)")
    axes[0].set_title("Energies relative to the start", fontsize="medium")
    axes[-1].set_xlabel("time (ps)")
    _save(figure, path)


def _temperature(ps: np.ndarray, kelvin: np.ndarray, target_K: float | None, path: Path) -> None:
    figure, (axis,) = _figure(1)
    axis.plot(ps, kelvin, linewidth=0.8, label="instantaneous")
    axis.plot(ps, np.cumsum(kelvin) / np.arange(1, len(kelvin) + 1), label="running mean")
    if target_K is not None:
        axis.axhline(target_K, color="black", linewidth=0.8, linestyle="--", label=f"bath, {target_K:g} K")
    axis.set_xlabel("time (ps)")
    axis.set_ylabel("temperature (K)")
    axis.legend(frameon=False)
    _save(figure, path)


def _figure(panels: int):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 2.0 * panels if panels > 1 else 4.0), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: a caller's figures and settings stay as they are
    return figure, figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]


def _save(figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    replace_file(path, buffer.getvalue())
