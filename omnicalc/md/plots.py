"""Energy and temperature of a run over time, drawn from its log."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from omnicalc.md.files import replace_file

_MOST_POINTS = 20_000  # a longer log is thinned: a figure shows no more, and drawing stays quick


def draw(
    log: Path,
    energy_plot: Path,
    temperature_plot: Path,
    *,
    n_atoms: int,
    bath: Callable[[float], float] | None,
) -> None:
    """Write both figures (PNG) from log.csv; ``bath``: step to the bath's temperature, K, None without a bath."""
    rows, _ = _read(log)
    ps = rows[:, 1] / 1000
    _energy(ps, rows, n_atoms, energy_plot)
    _temperature(ps, rows, bath, temperature_plot)


def draw_cell(log: Path, path: Path, *, pressure: Callable[[float], float]) -> None:
    """Write the figure (PNG) of volume and pressure; ``pressure``: step to the barostat's, bar."""
    rows, names = _read(log)
    ps = rows[:, 1] / 1000
    figure, axes = _figure(2)
    panels = ("volume_A3", "volume (Å$^3$)"), ("pressure_bar", "pressure (bar)")
    for axis, (name, label) in zip(axes, panels, strict=True):
        values = rows[:, names.index(name)]
        axis.plot(ps, values, linewidth=0.8, label="instantaneous")
        axis.plot(ps, np.cumsum(values) / np.arange(1, len(values) + 1), label="running mean")
        axis.set_ylabel(label)
    bar = [pressure(step) for step in rows[:, 0]]
    axes[-1].plot(ps, bar, color="black", linewidth=0.8, linestyle="--", label="barostat")
    axes[-1].set_xlabel("time (ps)")
    axes[-1].legend(frameon=False)
    _save(figure, path)


def _read(log: Path) -> tuple[np.ndarray, list[str]]:
    """Rows (L, columns), thinned, and the names of the columns."""
    with log.open() as file:
        names = file.readline().strip().split(",")
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
    return rows[:: max(1, len(rows) // _MOST_POINTS)], names


def _energy(ps: np.ndarray, rows: np.ndarray, n_atoms: int, path: Path) -> None:
    figure, axes = _figure(3)
    for axis, (name, column) in zip(axes, (("potential", 2), ("kinetic", 3), ("total", 4)), strict=True):
        axis.plot(ps, 1000 * (rows[:, column] - rows[0, column]) / n_atoms, linewidth=0.8)
        axis.set_ylabel(f"{name}\n(meV/atom)")
    axes[0].set_title("Energies relative to the start", fontsize="medium")
    axes[-1].set_xlabel("time (ps)")
    _save(figure, path)


def _temperature(ps: np.ndarray, rows: np.ndarray, bath: Callable[[float], float] | None, path: Path) -> None:
    kelvin = rows[:, 5]
    figure, (axis,) = _figure(1)
    axis.plot(ps, kelvin, linewidth=0.8, label="instantaneous")
    axis.plot(ps, np.cumsum(kelvin) / np.arange(1, len(kelvin) + 1), label="running mean")
    if bath is not None:
        target = [bath(step) for step in rows[:, 0]]
        axis.plot(ps, target, color="black", linewidth=0.8, linestyle="--", label="bath")
    axis.set_xlabel("time (ps)")
    axis.set_ylabel("temperature (K)")
    axis.legend(frameon=False)
    _save(figure, path)


def _figure(panels: int):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 2.0 * panels if panels > 1 else 4.0), layout="constrained")
    return figure, figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]


def _save(figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    replace_file(path, buffer.getvalue())
