import numpy as np
import pytest

from omnicalc.analysis.survival import Intermittent, Survival, decay_time


def random_presence(n_pairs, n_frames, rng, leave=0.1, come=0.05):
    """Pairs that leave and come at constant rates per frame, (n_frames, n_pairs) bool, in equilibrium."""
    present = np.empty((n_frames, n_pairs), dtype=bool)
    present[0] = rng.random(n_pairs) < come / (come + leave)
    for k in range(1, n_frames):
        draw = rng.random(n_pairs)
        present[k] = np.where(present[k - 1], draw >= leave, draw < come)
    return present


def filled(present, tolerance):
    """Absences of up to ``tolerance`` frames filled in, and the one that the end cuts off."""
    out = present.copy()
    for column in out.T:
        seen = np.flatnonzero(column)
        for a, b in zip(seen[:-1], seen[1:], strict=True):
            if b - a - 1 <= tolerance:
                column[a:b] = True
        if len(seen) and len(column) - 1 - seen[-1] <= tolerance:
            column[seen[-1] :] = True
    return out


def brute_force(present, max_lag):
    """S and C by their definitions, all origins."""
    n = len(present)
    s, c = [], []
    for lag in range(max_lag + 1):
        origins = present[: n - lag]
        stay = origins.copy()
        for k in range(1, lag + 1):
            stay &= present[k : n - lag + k]
        s.append(stay.sum() / origins.sum())
        c.append((origins & present[lag:]).sum() / origins.sum())
    return np.array(s), np.array(c)


def fed(measure, present):
    for k, row in enumerate(present):
        measure.add(k, np.flatnonzero(row).astype(np.int64))
    return measure


@pytest.mark.parametrize(("n_blocks", "max_lag", "tolerance"), [(0, 20, 0), (7, 20, 0), (5, 59, 2), (10, 12, 4)])
def test_survival_is_its_definition(n_blocks, max_lag, tolerance):
    present = random_presence(30, 60, np.random.default_rng(n_blocks))
    survival = fed(Survival(60, n_blocks, max_lag, tolerance), present)
    survival.finish()
    ours = survival.decay()
    whole = filled(present, tolerance)
    expected, intermittent = brute_force(whole, max_lag)
    known = np.isfinite(expected)
    assert np.allclose(ours.curve, expected[known], atol=1e-12)
    assert np.abs(ours.curve - intermittent[known]).max() > 0.01, "coming back is not staying"
    departures = (whole[:-1] & ~whole[1:]).sum()
    assert survival.departures.sum() == departures
    assert survival.counted()[0] == pytest.approx(whole.sum() / departures)


def test_intermittent_correlation_is_its_definition():
    present = random_presence(40, 80, np.random.default_rng(1))
    expected = brute_force(present, 15)[1]
    for n_keys in (40, 10**9):  # looked up in a table, or by search
        ours = fed(Intermittent(80, 5, 15, n_keys), present).decay()  # lags so short that every frame is an origin
        assert np.allclose(ours.curve, expected, atol=1e-12)


def test_survival_equals_mdanalysis():
    from MDAnalysis.lib.correlations import autocorrelation

    rng = np.random.default_rng(2)
    swaps = [set(range(10))]
    for _ in range(60):  # always ten pairs: then a mean of ratios is the ratio of sums
        now = set(swaps[-1])
        if rng.random() < 0.4:
            now.remove(int(rng.choice(sorted(now))))
            now.add(int(rng.choice([k for k in range(30) if k not in now])))
        swaps.append(now)
    theirs = autocorrelation(swaps, tau_max=12)[1]
    survival = Survival(len(swaps), 0, 12)
    for k, now in enumerate(swaps):
        survival.add(k, np.array(sorted(now)))
    survival.finish()
    assert np.allclose(survival.decay().curve, theirs, atol=1e-12)


def test_constant_rate_gives_its_lifetime_by_every_way_and_honest_errors():
    """Departures at a rate of 0.02 per frame: S falls as 0.98^t, and nobody comes back."""
    hits, rate = [], 0.02
    for seed in range(30):
        present = random_presence(40, 3000, np.random.default_rng(seed), leave=rate, come=0.02)
        survival = fed(Survival(3000, 10, 300), present)
        survival.finish()
        decay, (counted, error) = survival.decay(), survival.counted()
        discrete = 1 / rate - 0.5  # trapezia over (1 - rate)^t
        hits.append((abs(decay.time - discrete) < 2.26 * decay.time_stderr, abs(counted - 1 / rate) < 2.26 * error))
    covered = np.mean(hits, axis=0)  # 95 % by Student's t with 9 degrees of freedom
    assert (covered > 0.85).all(), covered
    naive = 1 / rate / np.sqrt(40 * 3000)  # as if every frame were a new beginning
    assert error > 2 * naive


def test_time_of_a_curve():
    lags = np.arange(400)
    assert decay_time(lags, np.exp(-lags / 30)) == pytest.approx(30, rel=1e-3), "so is what a curve that is gone leaves"
    assert np.trapezoid(np.exp(-lags[:119] / 30)) < 29.5, "the wrong variant: to 0.02 alone"
    assert decay_time(lags[:4], np.exp(-5.0 * lags[:4])) == pytest.approx(0.505, abs=0.001)
    assert decay_time(lags[:60], np.exp(-lags[:60] / 30)) == pytest.approx(30, rel=1e-3), "the tail is added"
    assert np.trapezoid(np.exp(-lags[:60] / 30)) < 26, "and without it a third is missing"
    assert decay_time(lags[:20], np.exp(-lags[:20] / 30)) is None, "not yet at 1/e"


@pytest.mark.parametrize("occupancy", [0.05, 0.1, 0.25, 0.35])
def test_pairs_that_form_again_have_no_intermittent_time(occupancy):
    """C ends at the occupancy: its integral grows with the longest lag, and an exponential behind it is arbitrary."""
    times, continuous = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        present = random_presence(20, 2000, rng, leave=(1 - occupancy) / 20, come=occupancy / 20)
        for measure, found in ((Intermittent(2000, 0, 1000, 20), times), (Survival(2000, 0, 1000), continuous)):
            fed(measure, present)
            if isinstance(measure, Survival):
                measure.finish()
            found.append(measure.decay().time)
    assert times == [None] * 4
    assert np.mean(continuous) == pytest.approx(20 / (1 - occupancy), rel=0.25)


def test_pairs_that_form_once_have_an_intermittent_time():
    rng = np.random.default_rng(3)
    first, length = rng.integers(-200, 1500, 800), rng.geometric(1 / 30, 800)
    frames = np.arange(1500)[:, None]
    present = (frames >= first) & (frames < first + length)
    for lag in (700, 60):  # to the end, and with a tail behind the last lag
        decay = fed(Intermittent(1500, 5, lag, 800), present).decay()
        assert decay.time == pytest.approx(30, rel=0.1) and decay.time_stderr < 5


def test_few_pairs_have_every_frame_as_an_origin_and_many_enough(monkeypatch):
    from omnicalc.analysis import survival

    present = random_presence(40, 400, np.random.default_rng(4), leave=0.2, come=0.1)
    expected = brute_force(present, 200)[1]
    assert np.allclose(fed(Intermittent(400, 5, 200, 40), present).decay().curve, expected, atol=1e-12)
    monkeypatch.setattr(survival, "_HELD", 50)
    many = fed(Intermittent(400, 5, 200, 40), present)
    assert many.spacing == 8 and np.abs(many.decay().curve - expected).max() < 0.1
