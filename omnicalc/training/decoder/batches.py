"""Samples for a decoder: starts drawn from trajectories, with targets at times up to a horizon drawn for each."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from omnicalc.data.trajectories import Trajectory
from omnicalc.decoding.targets import Batch, window
from omnicalc.errors import InputError
from omnicalc.models.atom.physical import Start


class Sampler:
    """Draws batches; all randomness comes from the generator handed in, so that a resumed run draws the same."""

    def __init__(self, trajectories: Sequence[Trajectory], recipe):
        self.trajectories, self.recipe = trajectories, recipe
        part = (0.0, recipe.train_part)
        self.starts = [t.starts(window(t, recipe.longest), part) for t in trajectories]
        for trajectory, starts in zip(trajectories, self.starts, strict=True):
            if not len(starts):
                raise InputError(
                    f"the first {recipe.train_part:.0%} of {trajectory.name} has no window of {recipe.longest:g} fs; "
                    "make longer trajectories, or give a smaller longest in the recipe"
                )

    def draw(self, generator: torch.Generator) -> Batch:
        recipe = self.recipe
        uniform = torch.rand(recipe.batch, 3, generator=generator, dtype=torch.float64).numpy()
        ratio = recipe.longest / recipe.shortest
        chosen = [self._sample(u, recipe.shortest * ratio ** u[2]) for u in uniform]
        batch = _padded(chosen)
        if not recipe.random_rotations:
            return batch
        turn = random_rotations(recipe.batch, generator)
        start = batch.start
        return Batch(Start(start.numbers, start.x @ turn, start.v @ turn), batch.times, batch.wanted @ turn[:, None])

    def _sample(self, u: np.ndarray, horizon: float):
        """Atomic numbers, x, v, times and targets of one start."""
        k = int(u[0] * len(self.trajectories))
        trajectory, starts = self.trajectories[k], self.starts[k]
        longest, place = window(trajectory, self.recipe.longest), u[1] * 2 if self.recipe.time_reversal else u[1]
        backwards = place >= 1
        start = int(starts[int((place % 1) * len(starts))])
        last = max(self.recipe.frames, window(trajectory, horizon))
        steps = last * np.arange(1, self.recipe.frames + 1) // self.recipe.frames
        sign = -1 if backwards else 1
        start += longest if backwards else 0
        later = trajectory.x[start + sign * steps]
        times = steps * trajectory.spacing_fs
        return trajectory.numbers, trajectory.x[start], sign * trajectory.v[start], times, later


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, 3) float32 proper rotations, uniform."""
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return (q * torch.linalg.det(q)[:, None, None]).float()


def _padded(samples: list) -> Batch:
    most, frames = max(len(s[0]) for s in samples), len(samples[0][3])
    numbers = np.zeros((len(samples), most), np.int64)
    x, v = np.zeros((2, len(samples), most, 3), np.float32)
    later, times = np.zeros((len(samples), frames, most, 3), np.float32), np.zeros((len(samples), frames), np.float32)
    for k, (z, here, moving, when, then) in enumerate(samples):
        n = len(z)
        numbers[k, :n], x[k, :n], v[k, :n], times[k], later[k, :, :n] = z, here, moving, when, then
    start = Start(torch.from_numpy(numbers), torch.from_numpy(x), torch.from_numpy(v))
    return Batch(start, torch.from_numpy(times), torch.from_numpy(later))
