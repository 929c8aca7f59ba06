import numpy as np
import pytest

from omnicalc.analysis import peaks
from omnicalc.analysis.peaks import first_shell


def liquid(r, height=2.8, centre=2.75, width=0.13):
    """A skewed first peak, a first minimum and a second peak; r (n,) Å."""
    left = np.exp(-0.5 * ((r - centre) / width) ** 2)
    right = np.exp(-0.5 * ((r - centre) / (1.7 * width)) ** 2)
    first = height * np.where(r < centre, left, right)
    rise = 1 / (1 + np.exp(-(r - 3.35) / 0.12))
    return first + rise * (1 + 0.3 * np.exp(-0.5 * ((r - 4.5) / 0.4) ** 2) - 0.12)


def centres(width=0.02, upper=6.2):
    return width * (np.arange(int(upper / width)) + 0.5)


@pytest.mark.parametrize("width", [0.01, 0.02, 0.05])
def test_finds_a_skewed_peak_and_its_minimum(width):
    fine = np.arange(2.0, 4.0, 1e-4)
    exact = liquid(fine)
    top, low = fine[exact.argmax()], fine[2000 + 7500 :][exact[9500:].argmin()]
    r = centres(width)
    shell = first_shell(r, liquid(r))
    assert shell.peak.r == pytest.approx(top, abs=max(0.01, width / 3))
    assert shell.peak.g == pytest.approx(exact.max(), abs=0.03)
    assert shell.minimum.r == pytest.approx(low, abs=0.03)
    assert shell.minimum.g == pytest.approx(exact[9500:].min(), abs=0.02)


def test_the_smoothed_curve_itself_would_be_too_low():
    r = centres()
    g = liquid(r, width=0.08)
    shell = first_shell(r, g)
    assert shell.peak.g == pytest.approx(g.max(), abs=0.04)
    assert peaks._convolve(g, peaks._kernel(0.02)).max() < g.max() - 0.15


def test_noise_moves_the_peak_little_and_the_highest_bin_is_worse():
    r = centres()
    rng = np.random.default_rng(0)
    fitted, highest = [], []
    for _ in range(100):
        noisy = liquid(r) + 0.06 * rng.normal(size=len(r)) * np.sqrt(liquid(r) / 2.8)
        fitted.append(first_shell(r, np.maximum(noisy, 0), np.full_like(r, 0.03)).peak.g)
        highest.append(noisy.max())
    assert abs(np.mean(fitted) - liquid(r).max()) < 0.02
    assert np.std(fitted) < 0.05
    assert np.mean(highest) - liquid(r).max() > 0.03


def test_noise_alone_has_no_peak():
    r = centres()
    rng = np.random.default_rng(1)
    for _ in range(50):
        assert first_shell(r, 1 + 0.1 * rng.normal(size=len(r)), np.full_like(r, 0.1)) is None
    assert first_shell(r, 1 + 0.1 * rng.normal(size=len(r))) is not None, "it is the noise that decides"


def test_a_gap_behind_the_peak_is_met_in_its_middle():
    r = centres()
    g = 30 * np.exp(-0.5 * ((r - 0.97) / 0.03) ** 2) + 1.2 * np.exp(-0.5 * ((r - 1.9) / 0.1) ** 2)
    g[g < 1e-3] = 0
    shell = first_shell(r, g)
    assert shell.peak.r == pytest.approx(0.97, abs=0.005)
    assert shell.minimum.g == 0
    assert 1.15 < shell.minimum.r < 1.45


def test_no_minimum_without_a_rise_behind_it():
    r = centres()
    assert first_shell(r, 3 * np.exp(-0.5 * ((r - 5.9) / 0.2) ** 2)).minimum is None


def test_a_constant_curve_has_no_peak():
    assert first_shell(centres(), np.ones_like(centres())) is None
    assert first_shell(centres(), np.zeros_like(centres())) is None


def test_few_frames_find_the_first_minimum_and_not_a_lower_one_behind():
    """The second peak of such noise is none, and the valley behind it is a little deeper."""
    r = centres(upper=7.0)
    waves = 1 + 0.11 * np.cos(2 * np.pi * (r - 4.6) / 2.4) - 0.02 * (r - 4.6)
    exact = np.where(r < 2.8, 0.0, waves) + 2.0 * np.exp(-0.5 * ((r - 2.8) / 0.12) ** 2)
    noise = 0.09 * np.sqrt(np.maximum(exact, 0.02))
    rng = np.random.default_rng(0)
    shells = [first_shell(r, exact + noise * rng.normal(size=len(r)), noise) for _ in range(40)]
    assert sum(not 3.0 < shell.minimum.r < 4.0 for shell in shells) <= 2
