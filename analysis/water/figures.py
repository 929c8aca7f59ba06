"""The figures of this study, without pyplot, so that a caller's settings stay as they are."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from omnicalc.analysis.energy import EnergyLog, Estimate
from omnicalc.analysis.rdf_curves import Value


def draw_nve(time: np.ndarray, energy: np.ndarray, found: Estimate) -> Figure:
    """Total energy (n,), meV/atom, over time (n,), ps, and the line through it."""
    figure, axis = _axes("time (ps)", "total energy less its mean (meV/atom)")
    axis.plot(time, energy - energy.mean(), linewidth=0.6)
    label = f"{found.value:+.4f} ± {found.stderr:.4f} meV/atom/ps"
    axis.plot(time, found.value * (time - time.mean()), color="black", label=label)
    axis.legend(frameon=False)
    return figure


def draw_temperature(log: EnergyLog, kinetic: Estimate, configurational: Value, target: float) -> Figure:
    """Block means of the kinetic temperature, and both temperatures with their errors."""
    figure, axis = _axes("time (ps)", "temperature (K)")
    parts = np.array_split(np.arange(len(log.temperature)), kinetic.n_blocks)
    means = [log.temperature[part].mean() for part in parts]
    axis.plot([log.time_ps[part].mean() for part in parts], means, "o", label="kinetic, block means")
    low, high = kinetic.value - kinetic.stderr, kinetic.value + kinetic.stderr
    axis.axhspan(low, high, alpha=0.3, label=f"kinetic {kinetic.value:.1f} ± {kinetic.stderr:.1f} K")
    label = f"configurational {configurational.value:.1f} ± {configurational.stderr:.1f} K"
    style = {"fmt": "s", "color": "C1", "capsize": 4, "label": label}
    axis.errorbar(log.time_ps[-1], configurational.value, configurational.stderr, **style)
    axis.axhline(target, color="black", linewidth=0.8, linestyle="--", label=f"target {target:g} K")
    axis.legend(frameon=False)
    return figure


def draw_timestep(h: np.ndarray, bias: list[Value], fit: Value, expected: float, stretch: float) -> Figure:
    """Bias of the kinetic temperature over the squared time step (n,), fs, beside what is expected."""
    figure, axis = _axes("time step squared (fs²)", "kinetic temperature less target (K)")
    line = np.linspace(0, 1.05 * h.max() ** 2, 2)
    errors = [b.stderr for b in bias]
    axis.errorbar(h**2, [b.value for b in bias], errors, fmt="o", color="C0", capsize=4, label="runs")
    axis.plot(line, fit.value * line, color="C0", label=f"fit, {fit.value:+.2f} ± {fit.stderr:.2f} K/fs²")
    low, high = (fit.value + sign * fit.stderr for sign in (-1, 1))
    axis.fill_between(line, low * line, high * line, color="C0", alpha=0.2)
    axis.plot(line, expected * line, "--", color="C1", label=f"BAOAB, from forces, {expected:+.2f} K/fs²")
    axis.plot(line, stretch * line, ":", color="C2", label=f"BAOAB, O-H stretch only, {stretch:+.2f} K/fs²")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.legend(frameon=False)
    return figure


def _axes(x: str, y: str):
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    return figure, axis
