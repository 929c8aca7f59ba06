"""How long pairs stay together: continuous survival, intermittent correlation, and counted exchanges.

A pair (an ion and a water, a donor and an acceptor) is present or absent in each frame, h(t) = 1 or 0.

    S(t) = < h(t0) h(t0 + dt) ... h(t0 + t) > / < h(t0) >      continuous: never away in between
    C(t) = < h(t0) h(t0 + t) > / < h(t0) >                     intermittent: whatever happened in between
    tau  = integral of S (or C) from 0 to infinity; where pairs form again and again, C ends at the fraction of the
           time that they are present, and has none
    tau_N = (sum over pairs of the time present) / (number of departures)

Averages run over all pairs and all time origins t0 from which t still lies inside the trajectory, so that pairs
cut off by its end do not shorten anything. With a tolerance t*, absences of up to t* count as presence (Impey,
Madden, McDonald, J. Phys. Chem. 87, 5071 (1983)); tau_N with t* = 0.5 ps is the direct method of Hofer, Tran,
Schwenk, Rode, J. Comput. Chem. 25, 211 (2004). For departures at a constant rate all three times are equal.

Memory holds the pairs present and sums over lags, whatever the length of the trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omnicalc.analysis.blocks import MIN_BLOCKS, block_of, jackknife_error, leave_one_out
from omnicalc.analysis.energy import LONG_BLOCK

DECAYED = np.exp(-1.0)  # a correlation that stays above this gives no integral
_GONE = 0.02  # below this a curve is not followed: what it would still add is little beside its noise
_BEHIND = 0.4  # of a time may come from behind the last lag: an exponential at 1/e leaves 0.37 there, a plateau more
_ORIGINS, _HELD = 20, 20_000  # live time origins of the intermittent correlation at least, and their pairs at most
_AT_ONCE, _FRAMES_AT_ONCE = 2000, 50  # stays, and frames in which they ended, that are counted together
_TABLE = 20_000_000  # keys, a byte each


@dataclass(frozen=True)
class Decay:
    """A correlation over lags and its time; times in frames."""

    lags: np.ndarray  # (L,) frames
    curve: np.ndarray  # (L,)
    stderr: np.ndarray | None  # (L,)
    time: float | None  # None: within the lags it has not fallen far enough to tell
    time_stderr: float | None


class Survival:
    """Continuous survival of pairs, fed with the keys of those present in each frame."""

    def __init__(self, n_frames: int, n_blocks: int, max_lag: int, tolerance: int = 0, keep_stays: bool = False):
        """``max_lag`` and ``tolerance`` in frames; absences of up to ``tolerance`` frames are filled.

        ``keep_stays`` lists every stay in ``stays`` as (key, first frame, last frame), in memory that grows with
        their number.
        """
        self.stays: list[tuple[int, int, int]] | None = [] if keep_stays else None
        self.n_frames, self.n_blocks, self.tolerance = n_frames, n_blocks, tolerance
        self.max_lag = max(1, min(max_lag, n_frames - 1))
        b = max(n_blocks, 1)
        self._first = np.array([-(-k * n_frames // b) for k in range(b + 1)])  # first frame of each block
        self._lived = np.zeros((b, self.max_lag + 2))  # differences over remaining lifetimes; last: beyond
        self._possible = np.zeros((b, self.max_lag + 2))
        self._beyond = np.zeros((b, 2))
        self.departures = np.zeros(b)
        self._keys = np.empty(0, dtype=np.int64)
        self._start = np.empty(0, dtype=np.int64)
        self._last = np.empty(0, dtype=np.int64)
        self._ended: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # stays that wait to be counted
        self._n_ended = 0

    def add(self, position: int, keys: np.ndarray) -> None:
        """Pairs present at this frame, sorted and different, (n,) int64."""
        at = np.searchsorted(self._keys, keys)
        inside = at < len(self._keys)
        known = inside.copy()
        known[inside] = self._keys[at[inside]] == keys[inside]
        self._last[at[known]] = position
        stay = position - self._last <= self.tolerance
        new = keys[~known]
        if stay.all() and not len(new):
            return
        gone = ~stay
        self._ended.append((self._keys[gone], self._start[gone], self._last[gone]))
        self._n_ended += len(self._ended[-1][0])
        if self._n_ended > _AT_ONCE or len(self._ended) > _FRAMES_AT_ONCE:
            self._close_ended()
        merged = np.concatenate([self._keys[stay], new])
        order = np.argsort(merged, kind="stable")
        now = np.full(len(new), position)
        self._keys = merged[order]
        self._start = np.concatenate([self._start[stay], now])[order]
        self._last = np.concatenate([self._last[stay], now])[order]

    def _close_ended(self) -> None:
        if self._n_ended:
            self._close(*(np.concatenate(column) for column in zip(*self._ended, strict=True)), departed=True)
        self._ended, self._n_ended = [], 0

    def _close(self, keys: np.ndarray, start: np.ndarray, last: np.ndarray, departed: bool) -> None:
        b = len(self.departures)
        if self.stays is not None:
            self.stays.extend(zip(keys.tolist(), start.tolist(), last.tolist(), strict=True))
        if departed:
            self.departures += np.bincount(block_of(last, self.n_frames, b), minlength=b)
        end, longest = self.n_frames - 1, self.max_lag
        early, late = (block_of(int(k), self.n_frames, b) for k in (start.min(), last.max()))
        for block in range(early, late + 1):
            low = np.maximum(start, self._first[block])
            high = np.minimum(last, self._first[block + 1] - 1)
            some = low <= high
            low, high, final = low[some], high[some], last[some]
            for column, (sums, until) in enumerate(((self._lived, final), (self._possible, end))):
                least, most = until - high, until - low  # remaining frames of the origins in this block
                sums[block] += np.bincount(np.minimum(least, longest + 1), minlength=longest + 2)
                sums[block] -= np.bincount(np.minimum(most + 1, longest + 1), minlength=longest + 2)
                self._beyond[block, column] += np.maximum(most - np.maximum(least - 1, longest), 0).sum()

    def finish(self) -> None:
        """Close what is still present; call once, before any result. An absence cut off by the end is filled."""
        self._close_ended()
        if len(self._keys):
            self._close(self._keys, self._start, np.full_like(self._last, self.n_frames - 1), departed=False)
        self._keys = self._start = self._last = np.empty(0, dtype=np.int64)

    def decay(self) -> Decay:
        """S over lags 0 .. max_lag, and its time."""
        lived, possible = (
            np.cumsum(np.cumsum(sums[:, :-1], axis=1)[:, ::-1], axis=1)[:, ::-1] + self._beyond[:, [column]]
            for column, sums in enumerate((self._lived, self._possible))
        )
        return decay_of(np.arange(self.max_lag + 1), lived, possible, self.n_blocks)

    def counted(self) -> tuple[float | None, float | None]:
        """tau_N in frames and its error; None without any departure."""
        present = np.cumsum(self._lived[:, :-1], axis=1).sum(axis=1) + self._beyond[:, 0]
        total = self.departures.sum()
        if total == 0:
            return None, None
        if self.n_blocks == 0 or total < MIN_BLOCKS or (total - self.departures <= 0).any():
            return float(present.sum() / total), None
        parts = leave_one_out(present, np.ones(len(present))) / leave_one_out(self.departures, np.ones(len(present)))
        return float(present.sum() / total), float(jackknife_error(parts))


class Intermittent:
    """Intermittent correlation of pairs; all keys are below ``n_keys``.

    Every frame is a time origin while those within the longest lag hold few pairs, else evenly spaced ones are.
    """

    def __init__(self, n_frames: int, n_blocks: int, max_lag: int, n_keys: int):
        self.n_frames, self.n_blocks = n_frames, n_blocks
        self._now = np.zeros(n_keys, dtype=bool) if n_keys <= _TABLE else None  # who is present, to look up fast
        self.max_lag = max(1, min(max_lag, n_frames - 1))
        # a power of two, so that origins of a finer spacing serve the wider one too
        self.spacing, self._widest = 1, 1 << (max(1, self.max_lag // _ORIGINS).bit_length() - 1)
        self._together = np.zeros((max(n_blocks, 1), self.max_lag + 1))
        self._before = np.zeros_like(self._together)
        self._start = np.empty(0, dtype=np.int64)  # live origins with any pair
        self._count = np.empty(0, dtype=np.int64)  # pairs of each
        self._pairs = np.empty(0, dtype=np.int64)  # their keys, origin by origin

    def add(self, position: int, keys: np.ndarray) -> None:
        """Pairs present at this frame, sorted and different, (n,) int64."""
        live = position - self._start <= self.max_lag
        if len(self._pairs) > _HELD and self.spacing < self._widest:
            self.spacing *= 2
            live &= self._start % self.spacing == 0
        if not live.all():
            self._pairs = self._pairs[np.repeat(live, self._count)]
            self._start, self._count = self._start[live], self._count[live]
        if position % self.spacing == 0 and len(keys):
            self._pairs = np.concatenate([self._pairs, keys])
            self._start, self._count = np.append(self._start, position), np.append(self._count, len(keys))
        if not len(self._start):
            return
        block, lag = block_of(self._start, self.n_frames, self.n_blocks), position - self._start
        first = np.cumsum(self._count) - self._count
        self._together[block, lag] += np.add.reduceat(self._present(keys), first, dtype=np.int64)
        self._before[block, lag] += self._count

    def _present(self, keys: np.ndarray) -> np.ndarray:
        """Which of the pairs of all origins are among ``keys``."""
        if self._now is None:
            at = np.minimum(np.searchsorted(keys, self._pairs), max(len(keys) - 1, 0))
            return keys[at] == self._pairs if len(keys) else np.zeros(len(self._pairs), dtype=bool)
        self._now[keys] = True
        found = self._now[self._pairs]
        self._now[keys] = False
        return found

    def decay(self) -> Decay:
        return decay_of(np.arange(self.max_lag + 1), self._together, self._before, self.n_blocks)


def short_blocks(measure: Survival | Intermittent, time: float | None) -> bool:
    """Whether the blocks are too short beside a time (frames) for its error to be honest."""
    return time is not None and measure.n_frames < LONG_BLOCK * time * measure.n_blocks


def decay_of(lags: np.ndarray, above: np.ndarray, below: np.ndarray, n_blocks: int) -> Decay:
    """The ratio of two sums (B, L) over blocks of time origins, with jackknife errors where all blocks serve."""
    curve = _ratio(above.sum(axis=0), below.sum(axis=0))
    known = np.isfinite(curve)
    lags, curve, above, below = lags[known], curve[known], above[:, known], below[:, known]
    time = decay_time(lags, curve)
    used = below[:, 0] > 0 if len(lags) else np.zeros(0, dtype=bool)
    if n_blocks == 0 or used.sum() < MIN_BLOCKS:
        return Decay(lags, curve, None, time, None)
    above, below = above[used], below[used]
    parts = _ratio(above.sum(axis=0) - above, below.sum(axis=0) - below)
    parts = np.where(np.isfinite(parts), parts, curve)
    times = [decay_time(lags, part) for part in parts]
    error = None if time is None or None in times else float(jackknife_error(np.array(times)))
    return Decay(lags, curve, jackknife_error(parts), time, error)


def decay_time(lags: np.ndarray, curve: np.ndarray) -> float | None:
    """Integral of a decaying curve: trapezia to its last lag, or to where it is gone, and behind that an exponential
    from the last half of them.

    None for a curve that has not fallen to 1/e, whose last half hardly falls, or that only touches zero: it may level
    off, as C does where pairs form again, and then its integral has no end.
    """
    if len(curve) < 2 or curve[-1] > DECAYED:
        return None
    low = np.flatnonzero(curve <= _GONE)
    if len(low):  # noise behind the decay adds nothing but error
        if _by_chance(curve, low[0]):
            return None
        lags, curve = lags[: low[0] + 1], curve[: low[0] + 1]
    elif len(curve) < 3:
        return None
    inside, behind = float(np.trapezoid(curve, lags)), _behind(lags, curve)
    return inside + behind if (1 - _BEHIND) * behind <= _BEHIND * inside else None


def _behind(lags: np.ndarray, curve: np.ndarray) -> float:
    """Integral from the last lag on of an exponential fitted to the last half; infinite where that does not fall."""
    if curve[-1] <= 0:
        return 0.0
    half = lags >= min(lags[-1] / 2, lags[-2])
    slope = np.polyfit(lags[half], np.log(curve[half]), 1)[0]
    return float(curve[-1] / -slope) if slope < 0 else np.inf


def _by_chance(curve: np.ndarray, low: int) -> bool:
    """Whether a curve that is near zero at the place ``low`` had levelled off above: it hardly fell, or rises again."""
    hardly_fell = low >= 8 and curve[low // 2 : low + 1].mean() > 0.8 * curve[low // 4 : low // 2].mean()
    return bool(hardly_fell or curve[low:].mean() > 2 * _GONE)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below
