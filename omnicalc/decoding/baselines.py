"""What a decoder has to beat: futures that need no network, from the start frame and, for some, a mean structure.

All give (B, T, N, 3) Å for starts of one molecule and times (B, T) fs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from omnicalc.models.atom import rigid
from omnicalc.models.atom.physical import Start, first_guess, masses_of

START = "start frame"
CONSTANT = "constant linear and angular velocity"
BALLISTIC = "ballistic atoms"
MEAN = "aligned mean structure"
RIGID = "free rigid body"  # where the decoder's own guess is
MEAN_RIGID = "mean structure as a free rigid body"
ISSUE = (START, CONSTANT, BALLISTIC, MEAN)  # the others are harder


def baselines(start: Start, times: Tensor, mean: Tensor | None = None) -> dict[str, Tensor]:
    """All baselines; those with a mean structure only where ``mean`` (N, 3) is given.

    The mean structure is laid on the start frame by least squares; as a free rigid body it goes on from there with the
    start's momentum and angular momentum.
    """
    kinds = {START: "start", CONSTANT: "constant-rotation", BALLISTIC: "ballistic", RIGID: "rigid"}
    found = {name: first_guess(start, times, kind).frames for name, kind in kinds.items()}
    if mean is not None:
        masses = masses_of(start.numbers).to(start.x.dtype)
        laid = rigid.superposed(mean.to(start.x.dtype).expand_as(start.x), start.x, masses)
        found[MEAN] = laid[:, None].expand_as(found[START])
        guess, middle = first_guess(start, times), rigid.centre(start.x, masses)
        moved = found[RIGID][:, :, :1] - guess.x[:, None, :1] @ guess.turn.transpose(-1, -2)  # of the centre, (B, T, 1)
        found[MEAN_RIGID] = (laid - middle)[:, None] @ guess.turn.transpose(-1, -2) + moved
    return found


def mean_structure(frames: np.ndarray, numbers: np.ndarray, rounds: int = 5) -> Tensor:
    """(N, 3) Å: mean of ``frames`` (F, N, 3), each laid on it by least mass-weighted squares, until it stays."""
    x = torch.from_numpy(np.asarray(frames, dtype=np.float64))
    masses = masses_of(torch.from_numpy(np.asarray(numbers)))[None].expand(len(x), -1)
    mean = x[0]
    for _ in range(rounds):
        mean = rigid.superposed(x, mean.expand_as(x), masses).mean(0)
    return mean
