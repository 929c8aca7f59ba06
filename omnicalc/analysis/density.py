"""Mass density of a periodic system, frame by frame.

    rho = sum_i m_i / V        m_i standard atomic weights, V volume of the frame's box
"""

from __future__ import annotations

import numpy as np
from scipy.constants import atomic_mass

from omnicalc.analysis.cells import volume_and_heights
from omnicalc.analysis.experiment import is_water_like
from omnicalc.analysis.plots import MEASURED, OURS, finish
from omnicalc.analysis.reference_values import reference
from omnicalc.analysis.report import Result, make_result, series_quantity
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.topology import UNKNOWN, composition
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

_TO_G_CM3 = atomic_mass * 1e3 / 1e-24  # amu/Å³


def densities(source, *, top=None, progress=None, **settings) -> Result:
    """Density and cell of every frame, and their means.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: ``start``,
    ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_density, source, top, progress, **settings)


def plan_density(sampling: Sampling) -> Density:
    """Check input: a full cell, and elements that have masses."""
    sampling.need_cells("a density")
    elements = sampling.trajectory.elements
    if (elements == UNKNOWN).all():
        raise InputError(f"{sampling.trajectory.path}: no element is known, so there is no mass; give --top FILE")
    return Density(sampling)


class Density:
    """Collects volume and heights of the box."""

    verb, tables = "density", ("series",)

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self.mass = float(sampling.trajectory.labels.masses.sum())  # amu
        self.boxes = np.full((len(sampling), 6), np.nan)
        self.volumes = np.zeros(len(sampling))

    def add(self, position: int, frame: Frame) -> None:
        if frame.box is None:
            path = self.sampling.trajectory.path
            raise InputError(f"{path}: frame {frame.index} has no cell, and a density needs one")
        self.boxes[position] = frame.box
        self.volumes[position] = volume_and_heights(frame.box)[0]

    def result(self) -> Result:
        rho = self.mass / self.volumes * _TO_G_CM3
        frames, dt = np.array(self.sampling.frames), self.sampling.dt_ps
        series = {"frame": frames} | ({"time_ps": self.sampling.times} if dt else {})
        series |= {"density_g_cm3": rho, "volume_angstrom3": self.volumes}
        series |= {f"{name}": self.boxes[:, k] for k, name in enumerate(("a", "b", "c", "alpha", "beta", "gamma"))}
        fixed = np.ptp(self.volumes) <= 1e-6 * self.volumes[0]
        note = "the box never changes: constant volume" if fixed else f"spread {rho.std():.2g}"
        n = self.sampling.trajectory.n_atoms
        counts = composition(self.sampling.trajectory.elements)
        notes = [f"{counts[UNKNOWN]} sites of unknown element have no mass here"] if UNKNOWN in counts else []
        quantities = [
            series_quantity("density", rho, self.sampling, "g/cm³", note),
            series_quantity("volume", self.volumes, self.sampling, "Å³"),
            series_quantity("volume of an atom", self.volumes / n, self.sampling, "Å³"),
        ]
        if is_water_like(counts):
            quantities.append(reference("water density").quantity("density of water"))
        settings = {"mass_amu": self.mass}
        return make_result("density", self.sampling, settings, quantities, {"series": series}, notes, self._draw)

    def _draw(self, figure) -> None:
        axis = figure.subplots()
        dt = self.sampling.dt_ps
        rho = self.mass / self.volumes * _TO_G_CM3
        axis.plot(self.sampling.times, rho, color=OURS, linewidth=0.9)
        axis.axhline(rho.mean(), color=OURS, linestyle="--", linewidth=0.9, label=f"mean {rho.mean():.4f} g/cm³")
        if is_water_like(composition(self.sampling.trajectory.elements)):
            measured = reference("water density").value
            axis.axhline(measured, color=MEASURED, linestyle=":", linewidth=1.0, label="water, measured, 298 K")
        axis.ticklabel_format(useOffset=False)
        finish(axis, f"time ({'ps' if dt else 'frames'})", "density (g/cm³)", legend=True)
