"""Samples as the release cuts them from a trajectory: a start frame with its inputs, and later frames as targets."""

from dataclasses import dataclass

import numpy as np

from omnicalc.errors import InputError

_BOND = 1.6  # Å, below which two atoms of the first frame are neighbours on the molecular graph
_WIDER, _TRIES = 1.5, 10  # growth of that distance while there is no neighbour


@dataclass(frozen=True)
class Samples:
    """Inputs of the network for B starts of one molecule, and what it should give; Å and Å per stored frame."""

    x: np.ndarray  # (B, N, 4): vector and length
    v: np.ndarray  # (B, N, 4)
    features: np.ndarray  # (B, N, 9 + R): x, |x|, v, |v|, Z, return probabilities
    numbers: np.ndarray  # (N,) kept atoms
    x_later: np.ndarray  # (B, T, N, 3)
    v_later: np.ndarray  # (B, T, N, 3)


def cut(
    trajectory: np.ndarray, numbers: np.ndarray, starts: np.ndarray, delta: int, frames: int,
    *, rrwp: int = 0, hydrogens: bool = False,
) -> Samples:  # fmt: skip
    """Samples at frame indices ``starts`` (B,) of ``trajectory`` (F, N, 3) Å.

    Target i = 1 .. ``frames`` lies floor(``delta`` i / ``frames``) frames later. Velocities are differences to the next
    frame, taken before hydrogens are left out (unless ``hydrogens``). Arrays keep the trajectory's dtype.

    Raises:
        InputError: a start whose targets or velocities lie beyond the trajectory, or no atom left.
    """
    starts = np.asarray(starts)
    last = len(trajectory) - 2  # the last frame has no velocity
    if starts.size and (starts.min() < 0 or starts.max() + delta > last):
        raise InputError(
            f"starts {starts.min()} to {starts.max()} with targets {delta} frames later do not fit a trajectory of "
            f"{len(trajectory)} frames; the last usable frame is {last}"
        )
    kept = np.ones(len(numbers), bool) if hydrogens else np.asarray(numbers) > 1
    if not kept.any():
        raise InputError("no atom but hydrogen in the trajectory; keep hydrogens")
    x, v = trajectory[:-1, kept], np.diff(trajectory, axis=0)[:, kept]
    numbers = np.asarray(numbers)[kept]
    later = starts[:, None] + delta * np.arange(1, frames + 1) // frames
    x_0, v_0 = with_length(x[starts]), with_length(v[starts])
    walk = return_probabilities(trajectory[0, kept], rrwp).astype(x.dtype)
    fixed = np.concatenate([numbers[:, None].astype(x.dtype), walk], -1)
    fixed = np.broadcast_to(fixed, (len(starts), *fixed.shape))
    features = np.concatenate([x_0, v_0, fixed], -1)
    return Samples(x_0, v_0, features, numbers, x[later], v[later])


def with_length(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 4): the vector, then its length."""
    return np.concatenate([vectors, np.linalg.norm(vectors, axis=-1, keepdims=True)], -1)


def return_probabilities(positions: np.ndarray, steps: int) -> np.ndarray:
    """(N, steps): probability that a random walk on the molecular graph is back after 1, 2, ... ``steps`` steps.

    The graph joins atoms closer than 1.6 Å; the distance grows by half while no two atoms are, at most ten times.
    """
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1).astype(float)
    np.fill_diagonal(distance, np.inf)
    reach = _BOND
    for _ in range(_TRIES):
        if (distance < reach).any():
            break
        reach *= _WIDER
    adjacent = (distance < reach).astype(float)
    walk = adjacent / np.maximum(adjacent.sum(1, keepdims=True), 1)
    power, found = np.eye(len(positions)), []
    for _ in range(steps):
        power = power @ walk
        found.append(np.diag(power))
    return np.array(found).reshape(steps, len(positions)).T


def random_split(
    frames: int, delta: int, *, margin: int, fractions: tuple[float, float, float], seed: int = 100,
    most: tuple[int, int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Start indices for training, validation and test drawn at random from one pool, as the release does.

    ``frames`` of the trajectory, the last included. Windows overlap between the parts, so that errors on the test part
    are those of interpolation; :meth:`omnicalc.data.trajectories.Trajectory.starts` splits in time.

    Args:
        most: largest numbers of indices used, the first that were drawn.

    Raises:
        InputError: the pool is too small.
    """
    pool = np.arange(margin, frames - 1 - margin - delta + 1)
    sizes = [int(f * len(pool)) for f in fractions]
    if min(sizes, default=0) < 1 or sum(sizes) > len(pool):
        raise InputError(
            f"{frames} frames with margins of {margin} and targets {delta} frames later leave {max(len(pool), 0)} "
            f"starts, too few for fractions {', '.join(map(str, fractions))}; use a longer trajectory or a smaller "
            "margin"
        )
    generator, parts = np.random.RandomState(seed), []
    for size in sizes:
        drawn = generator.choice(pool, size, replace=False)
        pool = np.setdiff1d(pool, drawn)  # sorted
        parts.append(drawn)
    return tuple(parts if most is None else (part[:n] for part, n in zip(parts, most, strict=True)))
