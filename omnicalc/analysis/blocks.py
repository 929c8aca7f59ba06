"""Standard errors from contiguous blocks of frames, by leaving one block out at a time (the jackknife).

    theta_b   the estimate from all frames except those of block b
    error^2 = (B - 1) / B * sum_b (theta_b - mean theta)^2

For a plain mean over equal blocks this is the familiar standard deviation of block means over sqrt(B); for a
fitted peak it keeps each estimate nearly as quiet as the full one. Blocks must be longer than the correlation
time of what is measured; frames nearer than that make the error too small, however many there are.
"""

import numpy as np

from omnicalc.errors import InputError

MIN_BLOCKS = 5
MIN_FRAMES_PER_BLOCK = 2


def choose_blocks(n_frames: int, wanted: int) -> int:
    """Number of blocks: as many as wanted with two frames each, down to five; 0 where even that fails."""
    blocks = min(wanted, n_frames // MIN_FRAMES_PER_BLOCK)
    return blocks if blocks >= MIN_BLOCKS else 0


def check_blocks(wanted: int) -> None:
    """Raise InputError for too few."""
    if wanted < MIN_BLOCKS:
        raise InputError(f"--blocks {wanted} is too few for an error bar; give {MIN_BLOCKS} or more")


def block_of(position: int, n_frames: int, n_blocks: int) -> int:
    """Which of ``max(n_blocks, 1)`` contiguous, nearly equal blocks the frame at this position falls into."""
    return position * max(n_blocks, 1) // n_frames


def leave_one_out(sums: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Means without one block each: block sums (B, ...) and frames per block (B,) -> (B, ...)."""
    rest = (frames.sum() - frames).reshape(-1, *[1] * (sums.ndim - 1))
    return (sums.sum(axis=0) - sums) / rest


def jackknife_error(estimates: np.ndarray) -> np.ndarray:
    """Standard error from leave-one-out estimates (B, ...) -> (...)."""
    b = len(estimates)
    return np.sqrt((b - 1) / b * ((estimates - estimates.mean(axis=0)) ** 2).sum(axis=0))


def block_mean(values: np.ndarray, n_blocks: int) -> tuple[float, float | None]:
    """Mean and standard error of a series (F,) in ``n_blocks`` blocks; no error for 0 blocks.

    Frames that are not a number are left out; so are blocks without any other, and below five of those there is
    no error.
    """
    label = block_of(np.arange(len(values)), len(values), n_blocks)
    return ratio_mean(values, np.ones(len(values)), label, n_blocks)


def ratio_mean(values: np.ndarray, weights: np.ndarray, label: np.ndarray, n_blocks: int) -> tuple[float, float | None]:
    """sum(weights * values) / sum(weights) over entries (n,) with blocks ``label`` (n,), and its standard error."""
    known = np.isfinite(values) & (weights > 0)
    if not known.any():
        return float("nan"), None
    b = max(n_blocks, 1)
    sums = np.bincount(label[known], weights=(weights * values)[known], minlength=b)
    return ratio_of_sums(sums, np.bincount(label[known], weights=weights[known], minlength=b), n_blocks)


def ratio_of_sums(sums: np.ndarray, weights: np.ndarray, n_blocks: int) -> tuple[float, float | None]:
    """sum(sums) / sum(weights) from one entry per block (B,), and its jackknife error."""
    used = weights > 0
    if not used.any():
        return float("nan"), None
    mean = float(sums.sum() / weights.sum())
    if n_blocks == 0 or used.sum() < MIN_BLOCKS:
        return mean, None
    sums, weights = sums[used], weights[used]
    return mean, float(jackknife_error((sums.sum() - sums) / (weights.sum() - weights)))
