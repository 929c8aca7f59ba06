"""Vibrational density of states from the velocity autocorrelation function.

    C(t)  = sum_i m_i < v_i(t0) · v_i(t0 + t) >             over time origins t0, atoms i
    D(nu) = (4 c / C(0)) integral_0^T C(t) w(t) cos(2 pi c nu t) dt          integral from 0 to Nyquist is 1

    symbol  variable   meaning
    nu      wavenumber cm^-1; c is the speed of light
    w(t)    window     cos²(pi t / 2T): lines are about 1 / (c T) wide (half height), the resolution
    v       velocity   from the trajectory, or by differences of unwrapped positions of successive frames

Differences damp a frequency by sinc(nu c dt), which is divided out; what vibrates faster than the Nyquist limit
1 / (2 c dt) shows at a wrong place. The motion of the whole system is taken off. Partial densities by element add up
to the total, each integral being that element's share of the kinetic energy. Dickey, Paskin, Phys. Rev. 188, 1407
(1969). A spectrum of classical nuclei: no zero-point motion, no infrared intensities.
"""

from __future__ import annotations

import numpy as np
from scipy.constants import c as LIGHT

from omnicalc.analysis.blocks import jackknife_error
from omnicalc.analysis.lag_sums import LagSums
from omnicalc.analysis.plots import band, finish
from omnicalc.analysis.report import Quantity, Result, make_result
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.unwrap import FAR_STEP
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

WAVE = LIGHT * 100.0 * 1e-12  # cm^-1 to 1/ps
DEFAULT_RESOLUTION = 10.0  # cm^-1
MIN_FRAMES = 50
_MEMORY = 128e6  # bytes of velocities held
_HYDROGEN = 4000.0  # cm^-1: X-H stretches reach nearly this
_PEAKS = 6
_LOWEST = 30.0  # cm^-1: what lies below is diffusion, not vibration


def vibrational_spectrum(source, *, top=None, progress=None, **settings) -> Result:
    """Vibrational density of states and velocity autocorrelation function.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_vdos`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_vdos, source, top, progress, **settings)


def plan_vdos(
    sampling: Sampling,
    *,
    select: str | None = None,
    resolution: float | None = None,
    max_wavenumber: float = 4500.0,
    positions: bool = False,
) -> Vdos:
    """Check input.

    ``select``: only these atoms; ``resolution`` in cm^-1 (default 10, or what the length of the run allows);
    ``max_wavenumber``: end of the table; ``positions``: differences even where the file holds velocities.
    """
    sampling.need_frames(MIN_FRAMES, "a spectrum")
    dt = sampling.need_time("a spectrum")
    highest = last_wavenumber(max_wavenumber, dt)
    labels = sampling.trajectory.labels
    chosen = np.arange(len(labels.elements)) if select is None else labels.select(select, "--select")
    chosen = chosen[labels.masses[chosen] > 0]
    if not len(chosen):
        raise InputError("no selected atom has a known mass")
    lag = choose_lag(resolution, dt, len(sampling), len(chosen))
    return Vdos(sampling, chosen, lag, highest, positions, resolution)


class Vdos:
    """Accumulates products of velocities frame by frame."""

    verb, tables = "vdos", ("spectrum", "vacf")

    def __init__(self, sampling: Sampling, atoms: np.ndarray, lag: int, highest: float, positions: bool, asked):
        self.sampling, self.atoms, self.lag, self.highest, self.asked = sampling, atoms, lag, highest, asked
        labels = sampling.trajectory.labels
        self._masses = labels.masses
        self.elements, groups = np.unique(labels.elements[atoms], return_inverse=True)
        self._weights = np.sqrt(labels.masses[atoms])[:, None]
        first = next(sampling.trajectory.frames(sampling.frames[:1]))
        self.differences = positions or first.velocities is None
        n, b = len(sampling), max(sampling.n_blocks, 1)
        ends = np.array([-(-(k + 1) * n // b) for k in range(b)])
        self._sums = LagSums(ends, groups, lag, products=True)
        self._last = None

    def add(self, position: int, frame: Frame) -> None:
        if not self.differences:
            if frame.velocities is None:
                raise InputError(f"frame {frame.index} has no velocities, but the first one has; give --positions")
            self._take(frame.velocities.astype(np.float64))
            return
        here = self.sampling.unwrap(frame).copy()
        if self._last is not None:
            self._take((here - self._last) / self.sampling.dt_ps)
        self._last = here

    def _take(self, velocities: np.ndarray) -> None:
        velocities = velocities - self._masses @ velocities / self._masses.sum()
        self._sums.add(velocities[self.atoms] * self._weights)

    def result(self) -> Result:
        self._sums.finish()
        dt = self.sampling.dt_ps
        blocks = self.sampling.n_blocks
        nu, spectra, errors, shares = spectra_with_errors(
            self._sums, self.lag, dt, self.differences, self.highest, blocks
        )
        total = spectra.sum(axis=0)
        products, origins = self._sums.sums.sum(axis=(0, 1)), self._sums.origins.sum(axis=0)
        vacf = products / np.maximum(origins, 1)
        scale = vacf[0] if vacf[0] > 0 else 1.0
        spectrum = {"wavenumber_cm-1": nu, "total": total}
        spectrum |= {"total_stderr": np.full_like(total, np.nan) if errors is None else errors}
        spectrum |= {str(e): partial for e, partial in zip(self.elements, spectra, strict=True)}
        tables = {
            "spectrum": spectrum,
            "vacf": {"lag_ps": np.arange(self.lag + 1) * dt, "normalised": vacf / scale},
        }
        quantities = [
            Quantity(f"share of {e}", float(share), None, "", "of the kinetic energy")
            for e, share in zip(self.elements, shares, strict=True)
        ]
        quantities += bands_of(nu, total, errors, self.resolution)
        self._drawn = nu, spectra, total, errors
        settings = {
            "velocities": "differences of positions" if self.differences else "from the file",
            "resolution_cm-1": self.resolution,
            "nyquist_cm-1": 1.0 / (2.0 * WAVE * dt),
            "atoms": len(self.atoms),
        }
        return make_result("vdos", self.sampling, settings, quantities, tables, self._notes(), self._draw)

    @property
    def resolution(self) -> float:
        return 1.0 / (WAVE * self.lag * self.sampling.dt_ps)

    def _notes(self) -> list[str]:
        notes = []
        nyquist = 1.0 / (2.0 * WAVE * self.sampling.dt_ps)
        if nyquist < _HYDROGEN and "H" in self.elements:
            notes.append(
                f"frames {self.sampling.dt_ps * 1000:.3g} fs apart show nothing above {nyquist:.0f} cm⁻¹, and "
                f"hydrogen stretches from above it at wrong places; write frames more often (4 fs or less)"
            )
        if self.asked is None and self.resolution > 1.05 * DEFAULT_RESOLUTION:
            notes.append(f"the resolution is {self.resolution:.3g} cm⁻¹, as the run (or memory) allows no longer lags")
        if self.differences and self.sampling.unwrap.longest > FAR_STEP:
            notes.append("atoms move by a large part of the box between frames: differences of positions are wrong")
        return notes

    def _draw(self, figure) -> None:
        axis = figure.subplots()
        nu, spectra, total, errors = self._drawn
        for k, (element, partial) in enumerate(zip(self.elements, spectra, strict=True)):
            axis.plot(nu, partial * 1e3, color=f"C{k + 1}", linewidth=0.9, label=str(element))
        band(axis, nu, total * 1e3, None if errors is None else errors * 1e3, "#1b5faa", "total")
        finish(axis, "wavenumber (cm⁻¹)", "density of states (10⁻³ cm)", legend=True)
        axis.set_xlim(0, nu[-1])
        axis.set_ylim(bottom=min(0.0, 1e3 * float(total.min())))


def spectra_with_errors(sums: LagSums, lag: int, dt: float, differences: bool, highest: float, n_blocks: int):
    """Wavenumbers (K,) up to ``highest``, spectra by group (G, K), the error of their sum (K,) or None, shares (G,).

    The integral of the sum of all groups up to Nyquist is 1, and the shares are the integrals of the groups.
    ``differences``: what was summed are differences of successive values over ``dt`` ps.
    """
    from scipy.fft import next_fast_len, rfft

    size = next_fast_len(4 * lag, real=True)  # four points or more to a resolution
    nu = np.arange(size // 2 + 1) / (WAVE * size * dt)
    window = np.cos(0.5 * np.pi * np.arange(lag + 1) / (lag + 1)) ** 2
    window[0] *= 0.5  # trapezia
    damping = np.sinc(WAVE * nu * dt) ** 2 if differences else 1.0
    shown = nu <= highest * (1 + 1e-9)

    def density(products, origins):
        raw = rfft(window * products / np.maximum(origins, 1), size, axis=1).real / damping
        return raw / max(np.trapezoid(raw.sum(axis=0), nu), 1e-300)

    products, origins = sums.sums, sums.origins
    found = density(products.sum(axis=0), origins.sum(axis=0))
    shares = np.trapezoid(found, nu, axis=1)
    if not n_blocks:
        return nu[shown], found[:, shown], None, shares
    parts = [
        density(products.sum(axis=0) - products[b], origins.sum(axis=0) - origins[b]).sum(axis=0)[shown]
        for b in range(len(products))
    ]
    return nu[shown], found[:, shown], jackknife_error(np.array(parts)), shares


def bands_of(nu: np.ndarray, total: np.ndarray, errors: np.ndarray | None, resolution: float) -> list[Quantity]:
    """The highest bands of a spectrum (K,) that stand out of its noise, by wavenumber."""
    from scipy.signal import find_peaks

    found, facts = find_peaks(total, prominence=0.04 * total.max())
    noise = np.zeros(len(nu)) if errors is None else errors
    real = (nu[found] > _LOWEST) & (facts["prominences"] > 6.0 * noise[found])
    found, prominences = found[real], facts["prominences"][real]
    highest = np.sort(found[np.argsort(-prominences, kind="stable")[:_PEAKS]])
    quantities = []
    for k in highest:
        here = slice(k - 1, k + 2)  # a parabola through three points
        a, b, _ = np.polyfit(nu[here] - nu[k], total[here], 2)
        top = nu[k] - b / (2 * a) if a < 0 else nu[k]
        note = f"resolution {resolution:.3g} cm⁻¹"
        quantities.append(Quantity(f"band at {top:.0f}", float(top), None, "cm⁻¹", note))
    return quantities


def last_wavenumber(wanted: float, dt: float) -> float:
    """Where a spectrum ends, cm^-1: at the Nyquist limit of frames ``dt`` ps apart, if not before."""
    if not (np.isfinite(wanted) and wanted > 0):
        raise InputError(f"--max-wavenumber {wanted} is no wavenumber; give cm^-1 above zero")
    return min(wanted, 1.0 / (2.0 * WAVE * dt))


def choose_lag(resolution: float | None, dt: float, n_frames: int, n_atoms: int) -> int:
    """Longest lag in frames; InputError for a resolution that the run or memory does not allow."""
    most = min(n_frames // 2, int(_MEMORY / (24 * n_atoms)))
    wanted = DEFAULT_RESOLUTION if resolution is None else resolution
    if not (np.isfinite(wanted) and wanted > 0):
        raise InputError(f"--resolution {resolution} is none; give cm^-1 above zero, such as 10")
    lag = int(np.ceil(1.0 / (WAVE * wanted * dt)))
    if lag <= most:
        return max(lag, 4)
    if resolution is None:
        return most
    raise InputError(
        f"--resolution {resolution:g} cm^-1 needs lags of {lag} frames, and half of the frames used (or memory for "
        f"{n_atoms} atoms) gives {most}; give {1.0 / (WAVE * most * dt):.3g} or more, or fewer atoms with --select"
    )
