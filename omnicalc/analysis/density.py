"""Mass density of a periodic system, frame by frame, and its profile along one axis of the cell.

    rho    = sum_i m_i / V                         m_i masses of the run, V volume of the frame's box
    rho(s) = < sum of m_i in a slice / (V / n) >   n slices of equal thickness between two faces of the cell

Slices move and stretch with the cell. The axis of the profile's table is the mean distance from the face.
"""

from __future__ import annotations

import numpy as np
from scipy.constants import atomic_mass

from omnicalc.analysis.blocks import jackknife_error, leave_one_out
from omnicalc.analysis.experiment import is_water_like
from omnicalc.analysis.plots import MEASURED, OURS, band, finish
from omnicalc.analysis.reference_values import reference
from omnicalc.analysis.report import Result, make_result, series_quantity
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

AXES = ("a", "b", "c")
DEFAULT_SLICE = 0.5  # Å
_TO_G_CM3 = atomic_mass * 1e3 / 1e-24  # amu/Å³


def densities(source, *, top=None, progress=None, **settings) -> Result:
    """Density and cell of every frame, and their means.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_density`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_density, source, top, progress, **settings)


def plan_density(sampling: Sampling, *, profile: str | None = None, slice_width: float = DEFAULT_SLICE) -> Density:
    """Check input: a full cell, and elements that have masses.

    ``profile``: an axis of the cell, a, b or c, along which the density is also found, in slices of about
    ``slice_width`` Å.
    """
    sampling.need_cells("a density")
    if not sampling.trajectory.masses.any():
        raise InputError(f"{sampling.trajectory.path}: no element is known, so there is no mass; give --top FILE")
    if profile is None:
        return Density(sampling, None)
    if profile not in AXES:
        raise InputError(f"--profile {profile!r} is no axis of the cell; give a, b or c")
    first = next(sampling.trajectory.frames(sampling.frames[:1]))
    height = float(first.heights[AXES.index(profile)])
    if not (np.isfinite(slice_width) and 0 < slice_width <= height / 2):
        most = height / 2
        raise InputError(f"--slice {slice_width:g} Å does not cut {height:.2f} Å into slices; give 0.1 to {most:.3g}")
    return Density(sampling, _Profile(sampling, profile, max(2, round(height / slice_width))))


class Density:
    """Collects volume and heights of the box."""

    verb = "density"

    def __init__(self, sampling: Sampling, profile: _Profile | None):
        self.sampling, self.profile = sampling, profile
        self.tables = ("series", "profile") if profile else ("series",)
        self.mass = float(sampling.trajectory.masses.sum())  # amu
        self.boxes = np.full((len(sampling), 6), np.nan)
        self.volumes = np.zeros(len(sampling))

    def add(self, position: int, frame: Frame) -> None:
        if not frame.bulk:
            path = self.sampling.trajectory.path
            raise InputError(f"{path}: frame {frame.index} has no full cell, and a density needs one")
        self.boxes[position] = frame.box
        self.volumes[position] = frame.volume
        if self.profile is not None:
            self.profile.add(position, frame)

    def result(self) -> Result:
        rho = self.mass / self.volumes * _TO_G_CM3
        frames, dt = np.array(self.sampling.frames), self.sampling.dt_ps
        series = {"frame": frames} | ({"time_ps": self.sampling.times} if dt else {})
        series |= {"density_g_cm3": rho, "volume_angstrom3": self.volumes}
        series |= {f"{name}": self.boxes[:, k] for k, name in enumerate(("a", "b", "c", "alpha", "beta", "gamma"))}
        fixed = np.ptp(self.volumes) <= 1e-6 * self.volumes[0]
        note = "the box never changes: constant volume" if fixed else f"spread {rho.std():.2g}"
        n = self.sampling.trajectory.n_atoms
        massless = int((self.sampling.trajectory.masses == 0).sum())
        notes = [f"{massless} sites of unknown element have no mass here"] if massless else []
        quantities = [
            series_quantity("density", rho, self.sampling, "g/cm³", note),
            series_quantity("volume", self.volumes, self.sampling, "Å³"),
            series_quantity("volume of an atom", self.volumes / n, self.sampling, "Å³"),
        ]
        if is_water_like(self.sampling.trajectory.counts):
            quantities.append(reference("water density").quantity("density of water"))
        settings, tables = {"mass_amu": self.mass}, {"series": series}
        if self.profile is not None:
            tables["profile"] = self.profile.table()
            settings |= {"profile_axis": self.profile.axis, "slices": self.profile.n}
        return make_result("density", self.sampling, settings, quantities, tables, notes, self._draw)

    def _draw(self, figure) -> None:
        axis, *rest = np.atleast_1d(figure.subplots(1, 2 if self.profile else 1))
        if rest:
            figure.set_size_inches(10.0, 4.2)
            self.profile.draw(rest[0])
        dt = self.sampling.dt_ps
        rho = self.mass / self.volumes * _TO_G_CM3
        axis.plot(self.sampling.times, rho, color=OURS, linewidth=0.9)
        axis.axhline(rho.mean(), color=OURS, linestyle="--", linewidth=0.9, label=f"mean {rho.mean():.4f} g/cm³")
        if is_water_like(self.sampling.trajectory.counts):
            measured = reference("water density").value
            axis.axhline(measured, color=MEASURED, linestyle=":", linewidth=1.0, label="water, measured, 298 K")
        axis.ticklabel_format(useOffset=False)
        finish(axis, f"time ({'ps' if dt else 'frames'})", "density (g/cm³)", legend=True)


class _Profile:
    """Mass by element in slices between two faces of the cell, kept per block."""

    def __init__(self, sampling: Sampling, axis: str, n: int):
        self.sampling, self.axis, self.n = sampling, axis, n
        labels = sampling.trajectory.labels
        self._masses = labels.masses
        self.elements, self._of = np.unique(labels.elements[labels.masses > 0], return_inverse=True)
        self._atoms = np.flatnonzero(labels.masses > 0)
        self._sums = np.zeros((max(sampling.n_blocks, 1), len(self.elements), n))  # g/cm³
        self._frames = np.zeros(max(sampling.n_blocks, 1))
        self._height = 0.0

    def add(self, position: int, frame: Frame) -> None:
        from MDAnalysis.lib.mdamath import triclinic_vectors

        k = AXES.index(self.axis)
        vectors = triclinic_vectors(frame.box, dtype=np.float64)
        volume, heights = frame.volume, frame.heights
        part = frame.positions[self._atoms] @ np.linalg.inv(vectors)[:, k]
        bins = np.minimum((np.mod(part, 1.0) * self.n).astype(np.int64), self.n - 1)
        mass = np.bincount(self._of * self.n + bins, weights=self._masses[self._atoms], minlength=self._sums[0].size)
        block = self.sampling.block(position)
        self._sums[block] += mass.reshape(self._sums[0].shape) * (self.n / volume * _TO_G_CM3)
        self._frames[block] += 1
        self._height += float(heights[k])

    def table(self) -> dict[str, np.ndarray]:
        """Columns: distance from the face (Å), density and its error, and density by element, g/cm³."""
        total = self._sums.sum(axis=1)
        mean = self._sums.sum(axis=0) / self._frames.sum()
        error = np.full(self.n, np.nan)
        if self.sampling.n_blocks:
            error = jackknife_error(leave_one_out(total, self._frames))
        width = self._height / self._frames.sum() / self.n
        table = {f"{self.axis}_angstrom": (np.arange(self.n) + 0.5) * width}
        table |= {"density_g_cm3": mean.sum(axis=0), "density_stderr": error}
        return table | {f"density_{e}": row for e, row in zip(self.elements, mean, strict=True)}

    def draw(self, axis) -> None:
        table = self.table()
        place = table[f"{self.axis}_angstrom"]
        error = table["density_stderr"]
        band(axis, place, table["density_g_cm3"], None if np.isnan(error).all() else error, OURS, "all")
        for k, element in enumerate(self.elements):
            axis.plot(place, table[f"density_{element}"], color=f"C{k + 1}", linewidth=0.9, label=str(element))
        finish(axis, f"distance along {self.axis} (Å)", "density (g/cm³)", legend=True)
        axis.set_ylim(bottom=0)
