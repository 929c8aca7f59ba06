"""First peak of a pair distribution and the minimum behind it: found on a smooth curve, fitted on the raw.

Finding: g is smoothed by a Gaussian of 0.04 Å, and peaks are kept whose prominence exceeds 0.1 and 5.5 times
its own noise. The first minimum lies before the next of these, and before the first rise by 0.1 and 3 times its noise:
of few frames the next peak may not stand out, and what lies behind it may be lower.

Fitting: a polynomial is fitted by least squares to the unsmoothed g, over the bins within 30 % of a peak's
prominence or 40 % of a minimum's depth, and its extremum is reported; a quartic where there are nine bins or more
(water's O-O is skewed), a cubic from five on, else a parabola. For water's O-O the choice of these fractions moves the
peak by less than its statistical error (0.005 Å and 0.02 for 400 frames of 64 molecules); the smoothing alone would
lower it by several per cent.
"""

from dataclasses import dataclass

import numpy as np

SMOOTHING = 0.04  # Å
MIN_PROMINENCE = 0.1
NOISE_FACTOR, RISE_FACTOR = 5.5, 3.0
PEAK_DEPTH, MINIMUM_DEPTH = 0.3, 0.4  # of the prominence, or of the depth of the minimum
CUBIC_FROM, QUARTIC_FROM = 5, 9  # bins


@dataclass(frozen=True)
class Extremum:
    """A fitted peak or minimum: where (Å) and how high, and how to fit it again to another curve."""

    r: float
    g: float
    window: np.ndarray  # (n,) bin indices that were fitted
    sign: int  # +1 peak, -1 minimum

    def refit(self, r: np.ndarray, g: np.ndarray) -> tuple[float, float]:
        """The same extremum of another curve on the same bins, from the same window: (r, g)."""
        return _fit(r, g, self.window, self.sign)


@dataclass(frozen=True)
class Shell:
    """The first coordination shell of a curve."""

    peak: Extremum
    minimum: Extremum | None


def first_shell(r: np.ndarray, g: np.ndarray, noise: np.ndarray | None = None) -> Shell | None:
    """First peak and first minimum of g (n,) on equal bins centred at r (n,) Å; None if no peak stands out.

    ``noise`` (n,) is the statistical error of each bin, none by default.
    """
    from scipy.signal import find_peaks

    if len(r) < 5:
        return None
    kernel = _kernel(r[1] - r[0])
    smooth = _convolve(g, kernel)
    error = np.zeros_like(g) if noise is None else np.sqrt(_convolve(noise**2, kernel**2))
    found, facts = find_peaks(smooth, prominence=MIN_PROMINENCE)
    left, right = facts["left_bases"], facts["right_bases"]
    base = np.where(smooth[left] > smooth[right], left, right)  # the prominence is the height above this one
    stands_out = facts["prominences"] > NOISE_FACTOR * np.hypot(error[found], error[base])
    found, prominences = found[stands_out], facts["prominences"][stands_out]
    if len(found) == 0:
        return None
    window = _around(smooth, found[0], prominences[0] * PEAK_DEPTH, 0, len(r))
    peak = Extremum(*_fit(r, g, window, +1), window, +1)
    return Shell(peak, _first_minimum(r, g, smooth, error, found))


def _first_minimum(r, g, smooth, error, peaks) -> Extremum | None:
    """The lowest point between the first and the next peak, or the end if g rises again before it."""
    first, end = peaks[0], peaks[1] + 1 if len(peaks) > 1 else len(r)
    lowest = first + _before_rise(smooth[first:end], error[first:end])
    rise = smooth[lowest:end].max() - smooth[lowest]
    depth = min(rise, smooth[first] - smooth[lowest])
    if depth <= max(0.01, NOISE_FACTOR / 2 * error[lowest]):
        return None
    window = _around(-smooth, lowest, depth * MINIMUM_DEPTH, first, end)
    return Extremum(*_fit(r, g, window, -1), window, -1)


def _before_rise(curve: np.ndarray, error: np.ndarray) -> int:
    """The lowest point before the curve rises from it beyond its noise, of the whole curve where it never does."""
    low = np.minimum.accumulate(curve)
    at = np.maximum.accumulate(np.where(curve == low, np.arange(len(curve)), 0))
    rises = np.flatnonzero(curve - low > np.maximum(MIN_PROMINENCE, RISE_FACTOR * np.hypot(error, error[at])))
    return int(at[rises[0] if len(rises) else -1])


def _around(curve: np.ndarray, top: int, depth: float, low: int, high: int) -> np.ndarray:
    """The unbroken run of bins around ``top`` that lie less than ``depth`` below it, three bins at least."""
    level = curve[top] - depth
    left, right = top, top
    while left - 1 >= low and curve[left - 1] >= level:
        left -= 1
    while right + 1 < high and curve[right + 1] >= level:
        right += 1
    return np.arange(max(min(left, top - 1), 0), min(max(right, top + 1) + 1, len(curve)))


def _fit(r: np.ndarray, g: np.ndarray, window: np.ndarray, sign: int) -> tuple[float, float]:
    y = g[window]
    if sign < 0 and (y <= 0).any():  # an empty gap: its middle
        empty = window[y <= 0]
        return float(r[empty].mean()), 0.0
    centre, half = (r[window[0]] + r[window[-1]]) / 2, max((r[window[-1]] - r[window[0]]) / 2, 1e-12)
    x = (r[window] - centre) / half
    degree = 4 if len(window) >= QUARTIC_FROM else 3 if len(window) >= CUBIC_FROM else 2
    polynomial = np.polynomial.Polynomial.fit(x, y, degree, domain=[-1, 1])
    roots = polynomial.deriv().roots()
    roots = roots.real[(abs(roots.imag) < 1e-9) & (abs(roots.real) <= 1)]
    if len(roots) == 0:  # no extremum inside: the best bin itself
        best = window[np.argmax(sign * y)]
        return float(r[best]), float(g[best])
    best = roots[np.argmax(sign * polynomial(roots))]
    return float(centre + half * best), float(polynomial(best))


def _kernel(spacing: float) -> np.ndarray:
    reach = int(np.ceil(4 * SMOOTHING / spacing))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * spacing / SMOOTHING) ** 2)
    return weights / weights.sum()


def _convolve(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = len(kernel) // 2
    return np.convolve(np.pad(values, reach, mode="edge"), kernel, mode="valid")
