"""Errors of a decoder on trajectories, beside those of every baseline, by horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from omnicalc.data.trajectories import Trajectory
from omnicalc.decoding.baselines import ISSUE, MEAN, MEAN_RIGID, baselines, mean_structure
from omnicalc.decoding.targets import fixed_batch, window
from omnicalc.errors import InputError

DECODER = "decoder"
HORIZONS = (50.0, 100.0, 200.0, 500.0)  # fs


def horizons_up_to(longest: float) -> tuple[float, ...]:
    """Those of :data:`HORIZONS` below ``longest`` (fs), and itself."""
    return (*(h for h in HORIZONS if h < longest), float(longest))


@dataclass(frozen=True)
class Errors:
    """Mean squared errors (Å^2 per coordinate) of one molecule: method -> (H,) at the horizons."""

    name: str
    s2t: dict[str, np.ndarray]  # over `frames` frames, evenly spaced up to each horizon
    s2s: dict[str, np.ndarray]  # of the last of them


def molecule_errors(
    models: Sequence, trajectory: Trajectory, *, part: tuple[float, float] = (0.0, 1.0), frames: int = 8,
    starts: int = 24, horizons: Sequence[float] = HORIZONS,
) -> Errors:  # fmt: skip
    """Errors from evenly spread starts in ``part`` of the trajectory; of several models the mean error.

    The mean structure is that of the frames outside ``part``, or of all where the part is all: then the baseline knows
    more than any prediction may.

    Raises:
        InputError: no start with a whole window, or a prediction that is not finite.
    """
    possible = trajectory.starts(window(trajectory, max(horizons)), part)
    if not len(possible):
        raise InputError(
            f"{trajectory.name} has no window of {max(horizons):g} fs in the part {part[0]:g} to {part[1]:g} of its "
            "frames to evaluate on; make longer trajectories, or begin earlier (--from)"
        )
    chosen = possible[np.unique(np.linspace(0, len(possible) - 1, starts).astype(int))]
    first, last = (round(f * len(trajectory.x)) for f in part)
    outside = np.r_[0:first, last : len(trajectory.x)]
    known = trajectory.x[outside if len(outside) else slice(None)][::5]
    mean = mean_structure(known, trajectory.numbers)
    s2t: dict[str, list] = {}
    s2s: dict[str, list] = {}
    for horizon in horizons:
        batch = fixed_batch(trajectory, chosen, horizon * np.arange(1, frames + 1) / frames)
        batch = batch.to(torch.float64)
        found = {name: [frames] for name, frames in baselines(batch.start, batch.times, mean).items()}
        found[DECODER] = []
        single = batch.to(torch.float32)
        for model in models:
            with torch.inference_mode():
                found[DECODER].append(model(single.start, single.times).double())
            if not found[DECODER][-1].isfinite().all():
                raise InputError(f"{trajectory.name}: the prediction is not finite; check its velocities and spacing")
        for name, predictions in found.items():
            squares = torch.stack([(p - batch.wanted).square() for p in predictions]).mean(0)
            s2t.setdefault(name, []).append(squares.mean().item())
            s2s.setdefault(name, []).append(squares[:, -1].mean().item())
    return Errors(trajectory.name, *({k: np.array(v) for k, v in table.items()} for table in (s2t, s2s)))


def table(errors: Sequence[Errors], measure: str, horizons: Sequence[float] = HORIZONS) -> str:
    """Mean over molecules, by method and horizon, 10^-2 Å^2; and on how many molecules the decoder is below."""
    methods = [DECODER, *(m for m in getattr(errors[0], measure) if m != DECODER)]
    values = {m: np.array([getattr(e, measure)[m] for e in errors]) for m in methods}
    header = f"{measure.upper()}, 10^-2 Å^2".ljust(39) + "".join(f"{h:>7g} fs" for h in horizons)
    lines = [header + "   decoder lower on"]
    for method in methods:
        row = "".join(f"{100 * v:10.2f}" for v in values[method].mean(0))
        lower = (values[DECODER] < values[method]).sum(0)
        beaten = "" if method == DECODER else "   " + " ".join(f"{n}/{len(errors)}" for n in lower)
        lines.append(f"{method:<39}{row}{beaten}")
    return "\n".join(lines)


def verdict(errors: Sequence[Errors], measure: str = "s2t", horizons: Sequence[float] = HORIZONS) -> str:
    """Whether the decoder is below every baseline, and from which horizon on nothing is below the mean structure."""
    values = {m: np.mean([getattr(e, measure)[m] for e in errors], 0) for m in getattr(errors[0], measure)}
    named = [f"{h:g} fs" for k, h in enumerate(horizons) if all(values[DECODER][k] < values[b][k] for b in ISSUE)]
    lines = [f"{measure.upper()}: decoder below {', '.join(ISSUE)} at: {', '.join(named) or 'no horizon'}"]
    for mean in (MEAN, MEAN_RIGID):
        others = [m for m in values if m not in (MEAN, MEAN_RIGID)]
        wins = [any(values[m][k] < values[mean][k] for m in others) for k in range(len(horizons))]
        lost = next((horizons[k] for k in range(len(horizons)) if not any(wins[k:])), None)
        if lost is None:
            lines.append(f"something is below the {mean} up to {horizons[-1]:g} fs")
        else:
            lines.append(f"nothing is below the {mean} from {lost:g} fs on")
    return "\n".join(lines)
