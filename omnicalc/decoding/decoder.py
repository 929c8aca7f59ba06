"""``ParallelDecoder``: later frames of a molecule, all at once."""

from __future__ import annotations

import time
import warnings
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.units import fs

from omnicalc.decoding.start import check_start
from omnicalc.decoding.start_batch import batch_of
from omnicalc.decoding.weights import load_decoder
from omnicalc.errors import InputError, OmniCalcWarning

_BEFORE = 1.0  # fs between two predicted positions whose difference is the velocity
_CLOSEST = 0.1  # fs between frames; closer ones have no velocities in float32


class ParallelDecoder:
    """Predicts positions and velocities at later times from one start with velocities.

    ``elements``, ``horizon_fs`` (largest time of the training) and ``card`` say what the weights are for. It is no
    potential: it has no energy and no forces.
    """

    def __init__(self, model: str | Path = "atom", *, dtype: str = "float32"):
        """``model``: a name, or the path of a weights folder. Raises :class:`omnicalc.errors.WeightsError`."""
        from omnicalc.registry import choose_dtype

        self.dtype = choose_dtype(dtype)
        network, self.card, self.name_resolved = load_decoder(model)
        self.network = network.to(self.dtype)
        self.elements, self.horizon_fs = self.card.elements, self.card.horizon_fs
        self.seconds = 0.0  # wall-clock time of the last call

    def decode(self, atoms: Atoms, *, frames: int = 8, horizon_fs: float = 500.0, rollout: int = 1) -> list[Atoms]:
        """``frames * rollout`` later frames, evenly spaced over ``rollout`` times ``horizon_fs``.

        ``atoms`` is one molecule with velocities; ``rollout`` > 1 starts again from the last frame, that many times in
        all. Frames carry velocities and ``info["time_fs"]``. A horizon, or the end of a rollout, beyond the training
        warns, with measured errors.

        Raises:
            InputError: no velocities, periodic axes, more than one molecule, an unknown element, a charge, frames or
                horizon that make no sense, or a prediction that is not finite.
        """
        check_start(atoms, "the start")
        for name, value in (("frames", frames), ("rollout", rollout)):
            if not (isinstance(value, Integral) and value >= 1):
                raise InputError(f"{name} {value!r} given; a whole number, 1 or more, is needed")
        if not (isinstance(horizon_fs, Real) and np.isfinite(horizon_fs) and horizon_fs / frames >= _CLOSEST):
            raise InputError(
                f"horizon {horizon_fs!r} fs given for {frames} frames; a number is needed, {_CLOSEST:g} fs or "
                "more a frame"
            )
        reached = horizon_fs * rollout
        if reached > self.horizon_fs * (1 + 1e-9):
            growth = self.card.error_growth()
            what = f"horizon {horizon_fs:g} fs" if rollout == 1 else f"the rollout's end at {reached:g} fs"
            warnings.warn(
                f"{what} is beyond the {self.horizon_fs:g} fs of the training of "
                f"{self.name_resolved}; its error grows: {growth or 'not measured'}",
                OmniCalcWarning,
                stacklevel=2,
            )
        begun, found, start = time.perf_counter(), [], atoms
        for k in range(rollout):
            found += self._once(start, frames, horizon_fs, k * horizon_fs)
            start = found[-1]
        self.seconds = time.perf_counter() - begun
        return found

    def _once(self, atoms: Atoms, frames: int, horizon: float, begun: float) -> list[Atoms]:
        times = horizon * np.arange(1, frames + 1) / frames
        gap = min(_BEFORE, 0.5 * float(times[0]))
        asked = np.stack([times - gap, times], 1).ravel()
        positions = self.positions(atoms, asked)
        later = []
        for k, moment in enumerate(times):
            before, here = positions[2 * k], positions[2 * k + 1]
            frame = Atoms(atoms.numbers, here, info={"time_fs": begun + float(moment)})
            frame.set_masses(atoms.get_masses())
            frame.set_velocities((here - before) / (gap * fs))
            later.append(frame)
        return later

    def positions(self, atoms: Atoms, times_fs: np.ndarray) -> np.ndarray:
        """(T, N, 3) float64 Å at ``times_fs`` (T,), above 0 and not falling, of one start with velocities.

        Raises:
            InputError: other times, an element that is not known, a prediction that is not finite.
        """
        times_fs = np.asarray(times_fs, dtype=float)
        if times_fs.ndim != 1 or not times_fs.size or not times_fs[0] > 0 or not (np.diff(times_fs) >= 0).all():
            raise InputError("times_fs has to be one row of times in fs, above 0 and not falling")
        near, middle = atoms.copy(), atoms.positions.mean(0)
        near.positions -= middle  # in float64: far from the origin float32 has few digits left
        start, times = batch_of(near, times_fs, self.dtype)
        with torch.inference_mode():
            found = self.network(start, times)
        positions = found[0].double().numpy() + middle
        if not np.isfinite(positions).all():
            raise InputError(
                "the prediction is not finite; check positions and velocities of the start, or give a smaller horizon"
            )
        return positions
