"""Errors of means and drifts on series whose true errors are known."""

import numpy as np
import pytest

from omnicalc.analysis.energy import correlation_time, drift, mean_with_error, read_log
from omnicalc.errors import InputError

HEADER = "step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K\n"
MEMORY = 0.9  # of the AR(1) noise, whose correlation time is then (1 + 0.9) / (1 - 0.9) / 2 = 9.5 values
LENGTH, SERIES, BLOCKS = 2000, 300, 10
SLOPE, MEAN = 0.02, 5.0  # per unit of time; 100 values are one unit
TIME = np.arange(LENGTH) / 100


def noise(rng: np.random.Generator, n: int = LENGTH, memory: float = MEMORY) -> np.ndarray:
    """AR(1) of unit variance: x_k = memory x_(k-1) + white noise, started in its stationary state."""
    from scipy.signal import lfilter

    white = rng.normal(size=n) * np.sqrt(1 - memory**2)
    white[0] = rng.normal()
    return lfilter([1.0], [1.0, -memory], white)


def assert_honest(estimate, true_value: float, true_error: float, freedom: int) -> None:
    """Over many series: no bias, the true error on average, and deviations that Student's t foresees."""
    rng = np.random.default_rng(3)
    values, errors = np.array([estimate(noise(rng)) for _ in range(SERIES)]).T
    assert abs(values.mean() - true_value) < 4 * true_error / np.sqrt(SERIES)
    assert values.std() == pytest.approx(true_error, rel=0.12)
    assert np.sqrt((errors**2).mean()) == pytest.approx(true_error, rel=0.12)
    pulls = (values - true_value) / errors
    assert np.mean(pulls**2) == pytest.approx(freedom / (freedom - 2), rel=0.35)


def slope_of(series: np.ndarray) -> tuple[float, float]:
    found = drift(TIME, MEAN + SLOPE * TIME + series, BLOCKS)
    return found.value, found.stderr


def naive_slope_of(series: np.ndarray) -> tuple[float, float]:
    """Least squares as if all values were independent."""
    (slope, _), covariance = np.polyfit(TIME, MEAN + SLOPE * TIME + series, 1, cov="unscaled")
    rest = series + SLOPE * TIME - slope * TIME
    return slope, np.sqrt(covariance[0, 0] * rest.var() * LENGTH / (LENGTH - 2))


def true_slope_error() -> float:
    """From the covariance matrix of AR(1) itself: slope = w . values, w = t / (t . t)."""
    from scipy.linalg import toeplitz

    w = TIME - TIME.mean()
    w = w / (w @ w)
    return np.sqrt(w @ toeplitz(MEMORY ** np.arange(LENGTH)) @ w)


def true_mean_error() -> float:
    k = np.arange(1, LENGTH)
    return np.sqrt((1 + 2 * np.sum((1 - k / LENGTH) * MEMORY**k)) / LENGTH)


def mean_of(series: np.ndarray) -> tuple[float, float]:
    found = mean_with_error(MEAN + series, BLOCKS)
    return found.value, found.stderr


def naive_mean_of(series: np.ndarray) -> tuple[float, float]:
    return MEAN + series.mean(), series.std() / np.sqrt(LENGTH)


def test_error_of_a_drift_in_correlated_noise():
    assert_honest(slope_of, SLOPE, true_slope_error(), BLOCKS - 2)


def test_error_of_a_mean_of_correlated_noise():
    assert_honest(mean_of, MEAN, true_mean_error(), BLOCKS - 1)


def test_errors_that_know_of_no_correlation_are_caught():
    with pytest.raises(AssertionError):
        assert_honest(naive_slope_of, SLOPE, true_slope_error(), LENGTH - 2)
    with pytest.raises(AssertionError):
        assert_honest(naive_mean_of, MEAN, true_mean_error(), LENGTH - 1)


def test_a_straight_line_has_no_error():
    found = drift(TIME, MEAN + SLOPE * TIME)
    assert found.value == pytest.approx(SLOPE, rel=1e-12)
    assert found.stderr < 1e-12 and found.spread < 1e-12
    assert drift(TIME[:23], -3 * TIME[:23], 7).value == pytest.approx(-3), "blocks of unequal length"


def test_a_slope_is_per_unit_of_time():
    series = noise(np.random.default_rng(4))
    one, other = drift(TIME, series), drift(1000 * TIME, series)
    assert other.value == pytest.approx(one.value / 1000)
    assert other.stderr == pytest.approx(one.stderr / 1000)


def test_correlation_time():
    rng = np.random.default_rng(5)
    assert correlation_time(rng.normal(size=20_000)) == pytest.approx(0.5, abs=0.05)
    assert correlation_time(noise(rng, 100_000)) == pytest.approx(9.5, rel=0.1)
    assert correlation_time(np.zeros(50)) == 0.5
    assert correlation_time(np.resize([1.0, -1.0], 1000)) == 0.0


def test_blocks_that_are_too_short_are_told():
    """A random walk has no drift, yet a line fits each one: its error is too small, and this must show."""
    rng = np.random.default_rng(6)
    walks = [drift(TIME, noise(rng).cumsum()) for _ in range(50)]
    assert np.mean([walk.value**2 for walk in walks]) > 2 * np.mean([walk.stderr**2 for walk in walks])
    assert not any(walk.long_blocks for walk in walks)
    assert np.mean([drift(TIME, noise(rng)).long_blocks for _ in range(50)]) > 0.9


def test_a_vibration_does_not_hide_a_slow_motion():
    """Alternating noise of five times the size, over a motion half as slow as a block is long."""
    rng = np.random.default_rng(7)
    fast = [5 * noise(rng, memory=-0.9) for _ in range(50)]
    both = [series + noise(rng, memory=0.99) for series in fast]
    assert all(mean_with_error(series).long_blocks for series in fast)
    assert np.mean([mean_with_error(series).long_blocks for series in both]) < 0.1
    assert np.mean([correlation_time(series) for series in both]) < LENGTH / BLOCKS / 10, "what it would hide"


def write_log(path, rows: np.ndarray):
    lines = [f"{int(r[0])},{r[1]:g},{r[2]:.8f},{r[3]:.8f},{r[4]:.8f},{r[5]:.4f}\n" for r in rows]
    path.write_text(HEADER + "".join(lines))
    return path


def test_a_log_is_read_and_cut(tmp_path):
    k = np.arange(100.0)
    rows = np.column_stack([20 * k, 10 * k, -5 - k, 1 + k, -4 + 0 * k, 300 + k])
    log = read_log(write_log(tmp_path / "log.csv", rows))
    assert log.step[-1] == 1980 and log.time_ps[-1] == pytest.approx(0.99)
    assert log.potential[3] == -8 and log.kinetic[3] == 4 and log.total[3] == -4 and log.temperature[3] == 303
    late = log.after(0.5)
    assert late.time_ps[0] == pytest.approx(0.5) and len(late.total) == 50
    with pytest.raises(InputError, match="9 lines from 0.91 ps on"):
        log.after(0.91)


def test_a_long_log_takes_little_more_memory_than_its_numbers(tmp_path):
    import tracemalloc

    k = np.arange(10_000.0)
    path = write_log(tmp_path / "log.csv", np.column_stack([20 * k, 10 * k, -5 - k, 1 + k, -4 + 0 * k, 300 + k]))
    read_log(path)
    tracemalloc.start()
    log = read_log(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(log.step) == 10_000 and most < 4 * 8 * 6 * len(k)


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "first line"),
        ("a,b\n1,2\n", "first line"),
        (HEADER, "growing steps"),
        (HEADER + "0,0,1,1,2,nan\n", "finite"),
        (HEADER + "20,1,1,1,2,3\n0,0,1,1,2,3\n", "growing steps"),
        (HEADER + "0,0,1,1\n", "log of a run"),
        (HEADER + "0,0,1,1,2,3\n20,1,1,1\n", "log of a run"),  # of a run that is being written
    ],
)
def test_what_is_no_log_is_refused(tmp_path, text, told):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        read_log(tmp_path / "log.csv")


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_log(tmp_path / "log.csv")
    with pytest.raises(InputError, match="10 or more"):
        mean_with_error(np.zeros(9))
    with pytest.raises(InputError, match="5 or more"):
        drift(TIME, TIME, 2)
