"""Energies and temperatures of a run from its log.csv: means and drifts with errors that know of correlation.

A series of n values is cut into B contiguous blocks (:mod:`omnicalc.analysis.blocks`).

    mean     jackknife over the blocks, which for equal blocks is std(block means) / sqrt(B)
    drift    a straight line through the block means m_b at the block times t_b, by least squares:
             slope  = S_tm / S_tt
             error² = sum_b (m_b - line_b)² / (B - 2) / S_tt

Values inside a block may be correlated; the error is honest once the blocks are much longer than the
integrated correlation time tau = 1/2 + sum_k rho_k of what is left beside the mean or the line (Sokal,
"Monte Carlo methods in statistical mechanics", 1997: the sum ends at the first k >= 5 tau). It is taken from
averages over a twentieth of a block, so that a fast vibration, which averages out, does not hide a slow
motion, which does not. ``Estimate`` carries both lengths. An energy that walks at random in place of drifting
shows as a tau near the length of a block.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from omnicalc.analysis.blocks import MIN_BLOCKS, block_of, choose_blocks, jackknife_error, leave_one_out
from omnicalc.errors import InputError

COLUMNS = ("step", "time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
LONG_BLOCK = 10.0  # correlation times; shorter blocks make the error too small by 5 % or more
_PARTS = 20  # of a block, averaged before correlations are looked for
_WINDOW = 5.0  # correlation times over which correlations are summed


@dataclass(frozen=True)
class EnergyLog:
    """Lines of a run's log.csv; all arrays (n,)."""

    path: Path
    step: np.ndarray  # int64
    time_ps: np.ndarray
    potential: np.ndarray  # eV
    kinetic: np.ndarray  # eV
    total: np.ndarray  # eV
    temperature: np.ndarray  # K
    conserved: np.ndarray | None = None  # eV, what the run should conserve, where its log has that

    def after(self, skip_ps: float) -> EnergyLog:
        """The lines from ``skip_ps`` on; InputError for no time, or when too few lines are left for an error."""
        if not skip_ps >= 0:
            raise InputError(f"--skip-ps {skip_ps:g} is no time; give ps, zero or more")
        late = self.time_ps >= skip_ps - 1e-9
        if not choose_blocks(int(late.sum()), MIN_BLOCKS):
            raise InputError(
                f"{self.path} ends at {self.time_ps[-1]:g} ps and has {late.sum()} lines from {skip_ps:g} ps "
                f"on; {2 * MIN_BLOCKS} or more are needed: skip less (--skip-ps), or make the run longer"
            )
        columns = (self.step, self.time_ps, self.potential, self.kinetic, self.total, self.temperature, self.conserved)
        return EnergyLog(self.path, *(None if column is None else column[late] for column in columns))


@dataclass(frozen=True)
class Estimate:
    """A mean or a slope with its standard error, and how long its blocks were."""

    value: float
    stderr: float
    spread: float  # root mean square of the values about the mean or the line
    n_blocks: int
    block: float  # values per block
    correlation: float  # correlation time, in values; about block / 40 where it is shorter than can be told

    @property
    def long_blocks(self) -> bool:
        """Whether the blocks are long enough for the error to be honest."""
        return self.block >= LONG_BLOCK * self.correlation


def read_log(path: str | Path) -> EnergyLog:
    """Read the log.csv of ``omnicalc md``. Raises InputError for a missing file or one of another form."""
    path = Path(path)
    try:
        with path.open(encoding="ascii") as file:
            names = file.readline().rstrip("\r\n").split(",")
            if tuple(names[: len(COLUMNS)]) != COLUMNS:
                raise ValueError(f"its first line does not begin with {','.join(COLUMNS)}")
            rows = _numbers(file, len(names))
        wanted = len(COLUMNS) + (names[len(COLUMNS) :][:1] == ["conserved_eV"])
        rows = rows[:, :wanted]  # ensembles add columns of their own behind these
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the folder of a run of 'omnicalc md'") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as the log of a run: {error}") from None
    if not len(rows) or not np.isfinite(rows).all() or (np.diff(rows[:, 0]) <= 0).any():
        raise InputError(f"{path} is not the log of a run: finite numbers at growing steps are needed")
    step, time_fs, *others = rows.T
    return EnergyLog(path, step.astype(np.int64), time_fs / 1000.0, *others)


def _numbers(file: TextIO, columns: int) -> np.ndarray:
    """All lines (n, columns); by numpy's own reader, as logs may have millions of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no data")
        rows = np.loadtxt(file, delimiter=",", comments=None, ndmin=2)
    if rows.size and rows.shape[1] != columns:
        raise ValueError(f"{columns} columns are named and {rows.shape[1]} are there")
    return rows.reshape(-1, columns)


def mean_with_error(values: np.ndarray, n_blocks: int = 10) -> Estimate:
    """Mean of a correlated series (n,). Raises InputError for fewer than ten values."""
    label, frames = _blocks(len(values), n_blocks)
    sums = np.bincount(label, weights=values)
    error = float(jackknife_error(leave_one_out(sums, frames)))
    return _estimate(float(values.mean()), error, values - values.mean(), frames)


def drift(time: np.ndarray, values: np.ndarray, n_blocks: int = 10) -> Estimate:
    """Slope of a correlated series: ``values`` (n,) against ``time`` (n,), per unit of time.

    The error follows Student's t with B - 2 degrees of freedom. Raises InputError for fewer than ten values.
    """
    label, frames = _blocks(len(values), n_blocks)
    times, means = (np.bincount(label, weights=series) / frames for series in (time, values))
    t = times - times.mean()
    slope = float(t @ means / (t @ t))
    about = means - means.mean() - slope * t
    error = float(np.sqrt(about @ about / (len(frames) - 2) / (t @ t)))
    rest = values - slope * time
    return _estimate(slope, error, rest - rest.mean(), frames)


def correlation_time(values: np.ndarray) -> float:
    """Integrated correlation time of a series (n,) of mean zero, in values: 0.5 for uncorrelated ones.

    Alternating series have less, down to zero; a constant one has 0.5.
    """
    n = len(values)
    power = np.abs(np.fft.rfft(values, 2 * n)) ** 2  # padded with zeros, so that the ends do not meet
    correlation = np.fft.irfft(power)[:n]
    if correlation[0] <= 1e-24 * n:
        return 0.5
    sums = 0.5 + np.cumsum(correlation[1:]) / correlation[0]
    enough = np.flatnonzero(np.arange(1, n) >= _WINDOW * sums)
    return max(0.0, float(sums[enough[0]] if enough.size else sums.max()))


def _estimate(value: float, error: float, rest: np.ndarray, frames: np.ndarray) -> Estimate:
    spread, block = float(np.sqrt(np.mean(rest**2))), float(frames.mean())
    part = max(1, int(block) // _PARTS)
    averages = rest[: len(rest) // part * part].reshape(-1, part).mean(axis=1)
    return Estimate(value, error, spread, len(frames), block, part * correlation_time(averages))


def _blocks(n: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Block of each value (n,) and values per block (B,)."""
    if wanted < MIN_BLOCKS:
        raise InputError(f"{wanted} blocks are too few for an error; give {MIN_BLOCKS} or more")
    blocks = choose_blocks(n, wanted)
    if not blocks:
        raise InputError(f"{n} values are too few for an error; {2 * MIN_BLOCKS} or more are needed")
    label = block_of(np.arange(n), n, blocks)
    return label, np.bincount(label).astype(np.float64)
