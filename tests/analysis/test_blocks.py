import numpy as np
import pytest

from omnicalc.analysis.blocks import block_mean, block_of, choose_blocks, jackknife_error, leave_one_out, ratio_mean


def test_blocks_are_contiguous_and_nearly_equal():
    for frames, blocks in ((10, 5), (2003, 10), (17, 8)):
        labels = [block_of(k, frames, blocks) for k in range(frames)]
        assert labels == sorted(labels)
        sizes = np.bincount(labels, minlength=blocks)
        assert len(sizes) == blocks and sizes.max() - sizes.min() <= 1


def test_fewer_blocks_for_few_frames_and_none_below_ten():
    assert [choose_blocks(n, 10) for n in (9, 10, 15, 100)] == [0, 5, 7, 10]


def test_jackknife_of_a_mean_is_the_standard_error_of_block_means():
    rng = np.random.default_rng(0)
    sums, frames = rng.normal(size=(8, 3)) * 5, np.full(8, 5.0)
    error = jackknife_error(leave_one_out(sums, frames))
    means = sums / 5
    assert np.allclose(error, means.std(axis=0, ddof=1) / np.sqrt(8))
    assert not np.allclose(error, means.std(axis=0) / np.sqrt(8)), "n in place of n - 1"


def test_jackknife_of_unequal_blocks_covers_the_truth():
    rng = np.random.default_rng(1)
    frames = np.array([3.0, 4.0, 3.0, 4.0, 3.0, 4.0])
    pulls = []
    for _ in range(2000):
        sums = rng.normal(size=6) * np.sqrt(frames)
        pulls.append(sums.sum() / frames.sum() / jackknife_error(leave_one_out(sums, frames)))
    assert np.sqrt(np.mean(np.square(pulls)) * 3 / 5) == pytest.approx(1.0, abs=0.12)  # Student's t, 5 degrees


def test_block_means_cover_the_truth_of_correlated_series():
    """Correlation time 10, 4,000 values, 10 blocks: inside 2.26 errors (t, 9 degrees of freedom) 95 % of the time."""
    rng = np.random.default_rng(0)
    decay = np.exp(-1 / 10)
    hits, naive = [], []
    for _ in range(200):
        noise = rng.normal(size=4000) * np.sqrt(1 - decay**2)
        series = np.empty(4000)
        series[0] = rng.normal()
        for k in range(1, 4000):
            series[k] = decay * series[k - 1] + noise[k]
        mean, error = block_mean(series, 10)
        assert mean == pytest.approx(series.mean())
        hits.append(abs(mean) < 2.26 * error)
        naive.append(abs(mean) < 1.96 * series.std() / np.sqrt(4000))
    assert 0.90 < np.mean(hits) <= 0.99
    assert np.mean(naive) < 0.6, "as if every value were a new one"


def test_block_means_leave_out_what_is_not_known():
    values = np.arange(20.0)
    values[[3, 4, 5, 6]] = np.nan  # one block of ten is empty, its neighbours are half so
    mean, error = block_mean(values, 10)
    assert mean == pytest.approx(np.nanmean(values)) and error > 0
    assert block_mean(values, 0) == (pytest.approx(np.nanmean(values)), None)
    assert np.isnan(block_mean(np.full(20, np.nan), 10)[0])
    few = np.full(20, np.nan)
    few[:8] = 1.0
    assert block_mean(few, 10)[1] is None, "four blocks are too few"


def test_mean_of_a_ratio_is_weighted():
    label = np.repeat(np.arange(5), 2)
    values, weights = np.arange(10.0), np.array([1, 3] * 5, dtype=float)
    mean, error = ratio_mean(values, weights, label, 5)
    assert mean == pytest.approx(np.average(values, weights=weights)) and error > 0
    assert mean != pytest.approx(values.mean())
