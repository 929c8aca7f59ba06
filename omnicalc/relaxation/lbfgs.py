"""L-BFGS: Newton steps with the curvature that the last steps have shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from omnicalc.relaxation.fire import capped

MEMORY = 50
CURVATURE = 70.0  # eV/Å^2, of all directions before any step; as in ASE
_RISE = 1e-3  # eV; a step that raises the energy by more has shown a curvature that does not hold


class Lbfgs:
    """Two-loop recursion without line search; a step is shortened where it would move an atom too far.

    With s the last displacements, y the changes of the gradient over them and H₀ = 1/70 Å^2/eV. Pairs with s·y <= 0,
    which no minimum has, are left out; after a step uphill all are forgotten.

    Nocedal, Math. Comput. 35, 773 (1980); Nocedal & Wright, Numerical Optimization, algorithm 7.4.
    """

    def __init__(self, max_step: float):
        self.max_step = max_step
        self.s: list[np.ndarray] = []
        self.y: list[np.ndarray] = []
        self.last: tuple[np.ndarray, np.ndarray, float] | None = None  # x, forces, energy

    def step(self, x: np.ndarray, forces: np.ndarray, energy: float) -> np.ndarray:
        """Displacement (M, 3), Å, from coordinates ``x`` (M, 3) with ``forces`` (M, 3), eV/Å, and ``energy``, eV."""
        if self.last is not None:
            self._learn(x - self.last[0], self.last[1] - forces, energy - self.last[2])
        self.last = x.copy(), forces.copy(), energy
        return capped(self._newton(forces), self.max_step)

    def _learn(self, s: np.ndarray, y: np.ndarray, rise: float) -> None:
        if rise > _RISE:
            self.s, self.y = [], []
        elif np.vdot(s, y) > 1e-12 * np.vdot(s, s):
            self.s, self.y = [*self.s, s][-MEMORY:], [*self.y, y][-MEMORY:]

    def _newton(self, forces: np.ndarray) -> np.ndarray:
        q, weights = forces.copy(), []
        for s, y in zip(reversed(self.s), reversed(self.y), strict=True):
            weights.append(np.vdot(s, q) / np.vdot(y, s))
            q -= weights[-1] * y
        z = q / CURVATURE
        for s, y, weight in zip(self.s, self.y, reversed(weights), strict=True):
            z += s * (weight - np.vdot(y, z) / np.vdot(y, s))
        return z

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that decides the next steps; :meth:`restore` takes it back."""
        if self.last is None:
            return {}
        x, forces, energy = self.last
        none = np.zeros((0, *x.shape))
        return {
            "s": np.array(self.s) if self.s else none,
            "y": np.array(self.y) if self.y else none,
            "x": x,
            "forces": forces,
            "energy": np.array(energy),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        if "x" in arrays:
            self.s, self.y = list(arrays["s"]), list(arrays["y"])
            self.last = arrays["x"], arrays["forces"], float(arrays["energy"])
