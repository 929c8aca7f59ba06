"""Mean squared displacements and diffusion coefficients.

    MSD(t) = < |u(t0 + t) - u(t0)|² >     over time origins t0 and molecules; u unwrapped, mean motion taken off
    MSD(t) = 6 D t + c                    least squares over the fit window
    D_inf  = D + xi k_B T / (6 pi eta L)  infinite system from a cubic box of edge L, xi = 2.837297

    symbol   variable      meaning
    u        displacement  of a molecule's centre of mass (or an atom), Å; see :mod:`omnicalc.analysis.unwrap`
    eta      viscosity     of the liquid, mPa s: given, or that of water at T
    L        edge          cube root of the mean volume, Å

The correction is that of Yeh, Hummer, J. Phys. Chem. B 108, 15873 (2004); for boxes that are not cubic xi differs.
The default viscosity is water's at 0.1 MPa, IAPWS R12-08, eq. for 253 to 383 K. A Langevin thermostat lets the whole
box diffuse as well, which is why the centre of mass of the system is taken off unless asked otherwise.

Errors: the largest of two jackknives, over blocks of time origins and over up to ten groups of molecules; the first
sees slow motions, the second stays honest when lags are as long as blocks. Of fewer than five molecules there is only
the first, raised by what it misses of a random walk (:func:`missed_by_blocks`).
"""

from __future__ import annotations

import numpy as np
from scipy.constants import k as BOLTZMANN
from scipy.sparse import csr_array

from omnicalc.analysis.blocks import MIN_BLOCKS, jackknife_error
from omnicalc.analysis.coordination import lag_frames
from omnicalc.analysis.experiment import is_water_like
from omnicalc.analysis.lag_sums import LagSums
from omnicalc.analysis.plots import MEASURED, band, finish
from omnicalc.analysis.reference_values import reference
from omnicalc.analysis.report import Quantity, Result, make_result
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.sources import run_temperature
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.unwrap import FAR_STEP
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

CUBIC = 2.837297
MIN_FRAMES = 20
GROUPS = 10
FIT = (0.2, 1.0)  # of the longest lag
_LAG_PART = 5  # of what is used is the longest lag
_MEMORY = 128e6  # bytes of positions held
_TO_1E9 = 10.0  # Å²/ps in 1e-9 m²/s
_STRAIGHT = 0.1  # deviation of the exponent from 1 that is worth a note


def diffusion(source, *, top=None, progress=None, **settings) -> Result:
    """Mean squared displacements and diffusion coefficients of every kind of molecule.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_msd`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_msd, source, top, progress, **settings)


def plan_msd(
    sampling: Sampling,
    *,
    select: str | None = None,
    atoms: bool = False,
    max_lag_ps: float | None = None,
    fit_ps: tuple[float, float] | None = None,
    viscosity: float | None = None,
    temperature: float | None = None,
    keep_com: bool = False,
) -> Diffusion:
    """Check input.

    ``select`` restricts to molecules with a selected atom; ``atoms`` follows atoms, by element, in place of
    molecules. ``max_lag_ps``: longest lag, by default a fifth of what is used; ``fit_ps``: window of the straight
    line, by default the last four fifths of the lags. ``viscosity`` in mPa s and ``temperature`` in K are for the
    size correction. ``keep_com`` leaves the motion of the whole system in.
    """
    sampling.need_frames(MIN_FRAMES, "a mean squared displacement")
    dt = sampling.need_time("a diffusion coefficient")
    for name, value in (("--viscosity", viscosity), ("--temperature", temperature)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} {value} is not above zero; give mPa s for a viscosity and K for a temperature")
    labels = sampling.trajectory.labels
    chosen = np.ones(len(labels.elements), dtype=bool)
    if select is not None:
        chosen = np.isin(np.arange(len(chosen)), labels.select(select, "--select"))
    particles = _Particles(labels, chosen, atoms)
    if particles.alone and not keep_com:
        raise InputError(
            f"there is one {'atom' if atoms else 'molecule'}, which does not move against the centre of mass of the "
            f"whole system that is taken off; leave its motion in with --keep-com"
        )
    lag = _longest_lag(sampling, max_lag_ps, particles.number)
    window = _window(fit_ps, lag, dt)
    return Diffusion(sampling, particles, lag, window, viscosity, temperature, keep_com)


class Diffusion:
    """Accumulates squared displacements of molecules frame by frame."""

    verb, tables = "msd", ("curves",)

    def __init__(self, sampling, particles: _Particles, lag, window, viscosity, temperature, keep_com):
        self.sampling, self.particles, self.lag, self.window = sampling, particles, lag, window
        self.viscosity, self.keep_com = viscosity, keep_com
        self.temperature = run_temperature(sampling.trajectory) if temperature is None else temperature
        n, b = len(sampling), max(sampling.n_blocks, 1)
        ends = np.array([-(-(k + 1) * n // b) for k in range(b)])
        self._sums = LagSums(ends, particles.groups, lag)
        self._volume, self._boxes = 0.0, []

    def add(self, position: int, frame: Frame) -> None:
        moved = self.sampling.unwrap(frame)
        masses = self.particles.masses
        if not self.keep_com:
            moved = moved - masses @ moved / masses.sum()
        self._sums.add(self.particles.of(moved))
        if frame.bulk:
            self._volume += frame.volume
            if position in (0, len(self.sampling) - 1):
                self._boxes.append(frame.box)

    def result(self) -> Result:
        self._sums.finish()
        dt, first, last = self.sampling.dt_ps, *self.window
        quantities, notes = [], self._notes()
        curves = {"lag_ps": np.arange(self.lag + 1) * dt}
        self._drawn = []
        correction, how = self._correction()
        for species in self.particles.species:
            msd, error, value, value_error, exponent = self._fitted(species)
            curves[f"msd_{species.name}_angstrom2"] = msd
            curves[f"msd_{species.name}_stderr"] = np.full_like(msd, np.nan) if error is None else error
            text = f"{species.count} {'atoms' if self.particles.by_atom else 'molecules'}; fit {first * dt:g} to "
            text += f"{last * dt:g} ps"
            if abs(exponent - 1.0) > _STRAIGHT:
                text += f"; not diffusive there (MSD ~ t^{exponent:.2f}): take longer lags"
            quantities.append(Quantity(f"D({species.name}) in this box", value, value_error, "1e-9 m²/s", text))
            infinite = None if correction is None else value + correction
            quantities.append(Quantity(f"D({species.name}), infinite box", infinite, value_error, "1e-9 m²/s", how))
            self._drawn.append((species, msd, error, value))
        if self._has_water():
            quantities.append(reference("water diffusion").quantity("D of pure water"))
        settings = {
            "followed": "atoms" if self.particles.by_atom else "centres of mass of molecules",
            "max_lag_ps": self.lag * dt,
            "fit_ps": [first * dt, last * dt],
            "viscosity_mPa_s": self._eta()[0],
            "temperature_K": self.temperature,
            "size_correction_1e-9_m2_s": correction,
            "keep_com": self.keep_com,
        }
        return make_result("msd", self.sampling, settings, quantities, {"curves": curves}, notes, self._draw)

    def _fitted(self, species: _Species):
        """MSD (lags,), its error, D and its error in 1e-9 m²/s, and the exponent of t in the fit window."""
        dt = self.sampling.dt_ps
        rows = slice(species.first_group, species.first_group + species.n_groups)
        sums, origins = self._sums.sums[:, rows], self._sums.origins  # (B, G, L), (B, L)
        sizes = species.sizes[None, :, None]
        all_sums, all_counts = sums.sum(axis=(0, 1)), origins.sum(axis=0) * species.count
        msd = all_sums / all_counts
        window = slice(self.window[0], self.window[1] + 1)
        time = np.arange(self.lag + 1)[window] * dt

        def slope(curve):
            return _TO_1E9 / 6.0 * np.polyfit(time, curve[..., window].T, 1)[0]

        parts, missed = [], np.ones(self.lag + 1)
        if self.sampling.n_blocks:
            counts = all_counts - origins * species.count
            parts.append((all_sums - sums.sum(axis=1)) / np.maximum(counts, 1))
        if species.n_groups < MIN_BLOCKS:
            n, b = len(self.sampling), self.sampling.n_blocks
            missed = np.array([missed_by_blocks(n, k, b) for k in range(self.lag + 1)]) if b else missed
        else:
            counts = all_counts - (origins.sum(axis=0) * sizes[0])
            parts.append((all_sums - sums.sum(axis=0)) / counts)
        exponent = np.polyfit(np.log(time), np.log(np.maximum(msd[window], 1e-300)), 1)[0]
        if not parts:
            return msd, None, float(slope(msd)), None, exponent
        curve_error = missed * np.max([jackknife_error(part) for part in parts], axis=0)
        value_error = float(missed[self.window[1]] * max(jackknife_error(slope(part)) for part in parts))
        return msd, curve_error, float(slope(msd)), value_error if np.isfinite(value_error) else None, exponent

    def _has_water(self) -> bool:
        """Whether the molecules of a periodic liquid that is nearly all water are followed."""
        names = [species.name for species in self.particles.species]
        return bool(self._boxes) and "H2O" in names and is_water_like(self.sampling.trajectory.counts)

    def _notes(self) -> list[str]:
        notes = []
        longest = self.sampling.unwrap.longest
        if longest > FAR_STEP:
            notes.append(
                f"an atom moves by {longest:.2f} of the box between two frames; nearest images may be "
                f"wrong: use frames that are closer in time"
            )
        if self._boxes and not _cubic(self._boxes[0]):
            notes.append("the box is not a cube: the size correction is that of a cube of the same volume")
        return notes

    def _eta(self) -> tuple[float | None, str]:
        if self.viscosity is not None:
            return self.viscosity, "given"
        water = is_water_like(self.sampling.trajectory.counts)
        if water and self.temperature is not None and 253.15 <= self.temperature <= 383.15:
            return water_viscosity(self.temperature), "water, measured"
        return None, ""

    def _correction(self) -> tuple[float | None, str]:
        """Yeh-Hummer correction in 1e-9 m²/s, and how it was made."""
        eta, whose = self._eta()
        if not self._boxes:
            return None, "no full cell, no size correction"
        if self.temperature is None:
            return None, "needs the temperature: --temperature K"
        if eta is None:
            return None, "needs the viscosity of the liquid: --viscosity MPA_S"
        edge = (self._volume / len(self.sampling)) ** (1 / 3) * 1e-10
        value = CUBIC * BOLTZMANN * self.temperature / (6 * np.pi * eta * 1e-3 * edge) * 1e9
        return value, f"+{value:.3f}: Yeh-Hummer, viscosity {eta:.4g} mPa s ({whose}), {self.temperature:g} K"

    def _draw(self, figure) -> None:
        axis = figure.subplots()
        time = np.arange(self.lag + 1) * self.sampling.dt_ps
        low, high = (k * self.sampling.dt_ps for k in self.window)
        axis.axvspan(low, high, color="0.93", zorder=0)
        for k, (species, msd, error, value) in enumerate(self._drawn):
            band(axis, time, msd, error, f"C{k}", f"{species.name} ({species.count}): D = {value:.3g} × 10⁻⁹ m²/s")
            fit = slice(self.window[0], self.window[1] + 1)
            line = np.polynomial.Polynomial.fit(time[fit], msd[fit], 1)
            axis.plot(time[fit], line(time[fit]), color=MEASURED, linewidth=0.9, linestyle="--")
        if self._has_water():
            measured = reference("water diffusion")
            start = float(next(m[self.window[0]] for s, m, _, _ in self._drawn if s.name == "H2O"))
            slope = 6.0 / _TO_1E9 * measured.value
            fit = time[self.window[0] : self.window[1] + 1]
            label = f"slope of water, measured, {measured.condition}, in an endless box"
            axis.plot(fit, start + slope * (fit - fit[0]), color=MEASURED, linestyle=":", linewidth=1.2, label=label)
        finish(axis, "t (ps)", "mean squared displacement (Å²)", legend=True)
        axis.set_xlim(0, time[-1])
        axis.set_ylim(bottom=0)
        axis.set_title("straight lines: fits over the grey window, D of this box", fontsize=9)


class _Species:
    """One kind of particle and its rows in the groups."""

    def __init__(self, name: str, count: int, first_group: int):
        self.name, self.count, self.first_group = name, count, first_group
        self.n_groups = min(GROUPS, count)
        self.sizes = np.bincount(np.arange(count) * self.n_groups // count, minlength=self.n_groups)


class _Particles:
    """What is followed: molecules by kind, or atoms by element."""

    def __init__(self, labels, chosen: np.ndarray, by_atom: bool):
        self.by_atom, self.masses = by_atom, labels.masses
        whole = np.arange(len(chosen)) if by_atom else labels.molecules
        kinds = labels.elements if by_atom else labels.kinds
        used = np.unique(whole[chosen & (labels.masses > 0)])
        keep = np.isin(whole, used) & (labels.masses > 0)
        if not keep.any():
            raise InputError("there is no atom of known mass to follow; the elements are not known")
        if self.masses.sum() <= 0:
            raise InputError("no atom has a known mass, so there is no centre of mass")
        self.alone = len(np.unique(whole[labels.masses > 0])) == 1
        self._atoms = np.flatnonzero(keep)
        row = np.searchsorted(used, whole[self._atoms])
        kind_of = np.empty(len(used), dtype=object)
        kind_of[row] = kinds[self._atoms]
        order = np.argsort(kind_of.astype(str), kind="stable")
        place = np.empty(len(used), dtype=int)
        place[order] = np.arange(len(used))
        self._row = place[row]
        weights = self.masses[self._atoms] / np.bincount(self._row, weights=self.masses[self._atoms])[self._row]
        self._mean = csr_array((weights, (self._row, self._atoms)), shape=(len(used), len(chosen)))
        self.number = len(used)
        self.species, groups = [], []
        for name, count in zip(*np.unique(kind_of.astype(str), return_counts=True), strict=True):
            first = self.species[-1].first_group + self.species[-1].n_groups if self.species else 0
            species = _Species(name, int(count), first)
            self.species.append(species)
            groups.append(first + np.arange(count) * species.n_groups // count)
        self.groups = np.concatenate(groups)

    def of(self, moved: np.ndarray) -> np.ndarray:
        """Displacements of atoms (N, 3) -> of particles (P, 3)."""
        return self._mean @ moved


def missed_by_blocks(n_frames: int, lag: int, n_blocks: int) -> float:
    """True error of the mean squared displacement of a random walk over that from blocks of time origins.

    Displacements from origins s apart correlate as (1 - s/lag)², also across the border of two blocks: they are not
    independent unless lags are short beside blocks. Sums of this over two blocks are differences of its second
    integral. Not a number where all origins lie in one block.
    """
    if lag == 0:
        return 1.0
    if (n_frames - lag) * n_blocks <= n_frames:
        return float("nan")
    edges = np.minimum(np.arange(n_blocks + 1) * n_frames / n_blocks, n_frames - lag)
    apart = np.abs(np.subtract.outer(edges, edges))
    second = lag * apart / 3 + lag**2 / 12 * (np.maximum(1 - apart / lag, 0) ** 4 - 1)
    between = -np.diff(np.diff(second, axis=0), axis=1)  # covariance of the sums over blocks (B, B)
    origins = np.diff(edges)
    parts = (1 - np.eye(n_blocks)) / (origins.sum() - origins)[:, None]  # each leaves a block out
    parts -= parts.mean(axis=0)
    seen = (n_blocks - 1) / n_blocks * np.trace(parts @ between @ parts.T)
    return float(np.sqrt(between.sum() / origins.sum() ** 2 / seen))


def water_viscosity(temperature: float) -> float:
    """Viscosity of liquid water at 0.1 MPa, mPa s (IAPWS R12-08, section 3.1; 253.15 to 383.15 K)."""
    t = temperature / 300.0
    return 1e-3 * (280.68 * t**-1.9 + 511.45 * t**-7.7 + 61.131 * t**-19.6 + 0.45903 * t**-40.0)


def _longest_lag(sampling: Sampling, max_lag_ps: float | None, particles: int) -> int:
    most = max(2, int(_MEMORY / (48 * particles)))
    if max_lag_ps is None:
        return max(4, min(len(sampling) // _LAG_PART, most))
    lag = lag_frames(sampling, max_lag_ps)
    if lag > most:
        raise InputError(
            f"--max-lag {max_lag_ps:g} ps holds {lag} frames of {particles} particles in memory; give up to "
            f"{most * sampling.dt_ps:g} ps, follow fewer with --select, or use fewer frames with --step"
        )
    return lag


def _window(fit_ps, lag: int, dt: float) -> tuple[int, int]:
    low, high = (part * lag * dt for part in FIT) if fit_ps is None else fit_ps
    first, last = max(1.0, np.ceil(low / dt - 1e-6)), np.floor(high / dt + 1e-6)
    if not (0 <= low < high and last <= lag and last - first >= 2):  # which nan and infinity are not either
        raise InputError(
            f"--fit {low:g} {high:g} is no window of at least three lags inside 0 to {lag * dt:g} ps, "
            f"the longest lag; change it, or --max-lag"
        )
    return int(first), int(last)


def _cubic(box: np.ndarray) -> bool:
    return bool(np.allclose(box[:3], box[0], rtol=0.01) and np.allclose(box[3:], 90.0, atol=0.5))
