"""Infrared spectrum from the fluctuations of the total dipole.

    C(t)  = < dM/dt(t0) · dM/dt(t0 + t) >                   over time origins t0
    I(nu) ~ integral_0^T C(t) w(t) cos(2 pi c nu t) dt      scaled so that its integral up to Nyquist is 1

    symbol  variable   meaning
    M       dipole     of the whole cell, e Å: from a table, or sum of fixed charges times unwrapped positions
    w(t)    window     as in :mod:`omnicalc.analysis.vdos`, where resolution and Nyquist limit are explained

I(nu) is the classical line shape n(nu) alpha(nu) with the harmonic quantum correction, without its prefactor: shapes
and relative intensities, no absolute ones (Ramirez, Lopez-Ciudad, Kumar, Marx, J. Chem. Phys. 121, 3973 (2004)). Fixed
charges leave out induced dipoles, so relative intensities are rough. Unwrapped positions make M continuous in time; the
dipoles of a table have to be so too, without the jumps by whole periods that periodic cells allow.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from omnicalc.analysis.lag_sums import LagSums
from omnicalc.analysis.plots import band, finish
from omnicalc.analysis.report import Result, make_result
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.topology import composition
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.vdos import MIN_FRAMES, WAVE, bands_of, choose_lag, last_wavenumber, spectra_with_errors
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

COLUMNS = ("dipole_x", "dipole_y", "dipole_z")  # e Å


def infrared_spectrum(source, *, top=None, progress=None, **settings) -> Result:
    """Infrared spectrum of the whole system.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_ir`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_ir, source, top, progress, **settings)


def plan_ir(
    sampling: Sampling,
    *,
    charges: str | None = None,
    dipoles: str | Path | None = None,
    resolution: float | None = None,
    max_wavenumber: float = 4500.0,
) -> Infrared:
    """Check input.

    ``charges``: fixed charges of all elements, e, such as ``"O=-0.834,H=0.417"``; or ``dipoles``: a CSV with columns
    dipole_x, dipole_y, dipole_z (e Å), one row for each frame of the trajectory. ``resolution`` in cm^-1 (default 10,
    or what the length of the run allows).
    """
    sampling.need_frames(MIN_FRAMES, "a spectrum")
    dt = sampling.need_time("a spectrum")
    highest = last_wavenumber(max_wavenumber, dt)
    if (charges is None) == (dipoles is None):
        raise InputError(
            "an infrared spectrum needs either --charges, such as 'O=-0.834,H=0.417', or --dipoles FILE, a CSV with "
            f"the columns {', '.join(COLUMNS)} in e Å and a row for each frame"
        )
    of_atoms = None if charges is None else _charges(charges, sampling.trajectory.elements)
    table = None if dipoles is None else _dipoles(Path(dipoles), sampling.trajectory.n_frames)
    lag = choose_lag(resolution, dt, len(sampling), 1)
    return Infrared(sampling, of_atoms, table, lag, highest, str(charges or dipoles))


class Infrared:
    """Accumulates products of the dipole's change from frame to frame."""

    verb, tables = "ir", ("spectrum", "correlation")

    def __init__(self, sampling: Sampling, charges, dipoles, lag: int, highest: float, came_from: str):
        self.sampling, self.lag, self.highest, self.came_from = sampling, lag, highest, came_from
        self._charges, self._dipoles = charges, dipoles
        n, b = len(sampling), max(sampling.n_blocks, 1)
        ends = np.array([-(-(k + 1) * n // b) for k in range(b)])
        self._sums = LagSums(ends, np.zeros(1, dtype=int), lag, products=True)
        self._last = None

    def add(self, position: int, frame: Frame) -> None:
        dipole = self._charges @ self.sampling.unwrap(frame) if self._dipoles is None else self._dipoles[frame.index]
        if self._last is not None:
            self._sums.add((dipole - self._last)[None] / self.sampling.dt_ps)
        self._last = dipole

    @property
    def resolution(self) -> float:
        return 1.0 / (WAVE * self.lag * self.sampling.dt_ps)

    def result(self) -> Result:
        self._sums.finish()
        dt = self.sampling.dt_ps
        products, origins = self._sums.sums.sum(axis=(0, 1)), self._sums.origins.sum(axis=0)
        correlation = products / np.maximum(origins, 1)
        if not correlation[0] > 0:
            raise InputError(f"the dipole ({self.came_from}) never changes, so there is nothing to absorb")
        blocks = self.sampling.n_blocks
        nu, spectra, errors, _ = spectra_with_errors(self._sums, self.lag, dt, True, self.highest, blocks)
        intensity = self._shown = nu, spectra[0], errors
        spectrum = {"wavenumber_cm-1": nu, "intensity": spectra[0]}
        spectrum["intensity_stderr"] = np.full_like(nu, np.nan) if errors is None else errors
        tables = {
            "spectrum": spectrum,
            "correlation": {"lag_ps": np.arange(self.lag + 1) * dt, "normalised": correlation / correlation[0]},
        }
        settings = {
            "dipole": self.came_from,
            "resolution_cm-1": self.resolution,
            "nyquist_cm-1": 1.0 / (2.0 * WAVE * dt),
        }
        notes = ["intensities are relative; the integral up to the Nyquist limit is 1"]
        if self._charges is not None:
            notes.append("fixed charges: no induced dipoles, so relative intensities are rough")
        bands = bands_of(*intensity, self.resolution)
        return make_result("ir", self.sampling, settings, bands, tables, notes, self._draw)

    def _draw(self, figure) -> None:
        axis = figure.subplots()
        nu, intensity, errors = self._shown
        band(axis, nu, intensity * 1e3, None if errors is None else errors * 1e3, "#1b5faa")
        finish(axis, "wavenumber (cm⁻¹)", "infrared intensity (10⁻³ cm)")
        axis.set_xlim(0, nu[-1])
        axis.set_ylim(bottom=min(0.0, 1e3 * float(intensity.min())))


def _charges(text: str, elements: np.ndarray) -> np.ndarray:
    """Charge of every atom (N,), e, from ``O=-0.8,H=0.4``."""
    given = {}
    for part in text.split(","):
        element, equals, value = part.partition("=")
        try:
            given[element.strip().capitalize()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"--charges {text!r}: {part.strip()!r} is no charge; write them as 'O=-0.834,H=0.417'")
    present = composition(elements)
    missing = [e for e in present if e not in given]
    if missing:
        raise InputError(f"--charges {text!r} names no charge for {', '.join(missing)}; there are {', '.join(present)}")
    charges = np.array([given[e] for e in elements])
    if not np.isfinite(charges).all():
        raise InputError(f"--charges {text!r} holds a charge that is not finite")
    total = charges.sum()
    if abs(total) > 1e-6 * len(charges):
        raise InputError(
            f"--charges {text!r} add up to {total:+.3g} e; the dipole of a charged system depends on where zero "
            "lies, so give charges that add up to nothing"
        )
    return charges


def _dipoles(path: Path, n_frames: int) -> np.ndarray:
    """Dipoles (F, 3), e Å, of all frames of the trajectory."""
    if not path.is_file():
        raise InputError(f"--dipoles {path} does not exist")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if lacking:
            there = ", ".join(reader.fieldnames or ["none"])
            raise InputError(f"--dipoles {path} has no column {', '.join(lacking)}; it has {there}")
        try:
            rows = np.array([[float(row[c]) for c in COLUMNS] for row in reader])
        except (TypeError, ValueError) as error:
            raise InputError(f"--dipoles {path} holds what is no number ({error})") from None
    if len(rows) != n_frames:
        raise InputError(f"--dipoles {path} has {len(rows)} rows and the trajectory {n_frames} frames; give one each")
    if not np.isfinite(rows).all():
        raise InputError(f"--dipoles {path}: row {int(np.argwhere(~np.isfinite(rows))[0, 0])} is not finite")
    return rows
