"""Starts of trajectories with what a decoder should give for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnicalc.data.trajectories import Trajectory
from omnicalc.models.atom.physical import Start


@dataclass(frozen=True)
class Batch:
    start: Start
    times: Tensor  # (B, T) fs
    wanted: Tensor  # (B, T, N, 3) Å

    def to(self, dtype: torch.dtype) -> "Batch":
        start = Start(self.start.numbers, self.start.x.to(dtype), self.start.v.to(dtype))
        return Batch(start, self.times.to(dtype), self.wanted.to(dtype))


def window(trajectory: Trajectory, horizon: float) -> int:
    """Frames within ``horizon`` fs."""
    return round(horizon / trajectory.spacing_fs)


def fixed_batch(trajectory: Trajectory, starts: np.ndarray, times: Sequence[float]) -> Batch:
    """Starts of one molecule with targets at the same ``times`` (fs), rounded to frames."""
    frames = np.array([window(trajectory, t) for t in times])
    times = np.broadcast_to(frames * trajectory.spacing_fs, (len(starts), len(frames)))
    return Batch(
        Start(
            torch.from_numpy(trajectory.numbers).expand(len(starts), -1),
            torch.from_numpy(trajectory.x[starts]),
            torch.from_numpy(trajectory.v[starts]),
        ),
        torch.from_numpy(times.astype(np.float32)),
        torch.from_numpy(trajectory.x[np.asarray(starts)[:, None] + frames]),
    )
