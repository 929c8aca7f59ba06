import numpy as np
import pytest

from omnicalc.analysis.blocks import block_of, choose_blocks, jackknife_error, leave_one_out


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
    assert np.sqrt(np.mean(np.square(pulls)) * 3 / 5) == pytest.approx(
        1.0, abs=0.12
    )  # Student's t, 5 degrees
