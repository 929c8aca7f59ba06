"""FIRE: steepest descent with inertia, which is lost at every step uphill."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

DT, DT_MAX, N_MIN = 0.1, 1.0, 5  # Å·sqrt(amu/eV) with a mass of 1 amu for all
F_INC, F_DEC, A_START, F_A = 1.1, 0.5, 0.1, 0.99


class Fire:
    """v ← (1 - a) v + a |v| F/|F| while F·v > 0, else v ← 0; then v ← v + dt F and x ← x + dt v.

    Bitzek, Koskinen, Gähler, Moseler & Gumbsch, Phys. Rev. Lett. 97, 170201 (2006); parameters as in ASE.
    """

    def __init__(self, max_step: float):
        self.max_step = max_step
        self.velocities: np.ndarray | None = None
        self.dt, self.a, self.downhill = DT, A_START, 0

    def step(self, x: np.ndarray, forces: np.ndarray, energy: float) -> np.ndarray:
        """Displacement (M, 3), Å, from coordinates ``x`` (M, 3) with ``forces`` (M, 3), eV/Å."""
        if self.velocities is None:
            self.velocities = np.zeros_like(x)
        else:
            self._mix(forces)
        self.velocities = self.velocities + self.dt * forces
        return capped(self.dt * self.velocities, self.max_step)

    def _mix(self, forces: np.ndarray) -> None:
        v = self.velocities
        if np.vdot(forces, v) > 0:
            self.velocities = (1 - self.a) * v + self.a * forces * np.sqrt(np.vdot(v, v) / np.vdot(forces, forces))
            if self.downhill > N_MIN:
                self.dt, self.a = min(self.dt * F_INC, DT_MAX), self.a * F_A
            self.downhill += 1
        else:
            self.velocities = np.zeros_like(v)
            self.dt, self.a, self.downhill = self.dt * F_DEC, A_START, 0

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that decides the next steps; :meth:`restore` takes it back."""
        velocities = np.zeros((0, 3)) if self.velocities is None else self.velocities
        return {"velocities": velocities, "numbers": np.array([self.dt, self.a, self.downhill])}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.velocities = arrays["velocities"] if len(arrays["velocities"]) else None
        self.dt, self.a = map(float, arrays["numbers"][:2])
        self.downhill = int(arrays["numbers"][2])


def capped(displacement: np.ndarray, longest: float) -> np.ndarray:
    """The same direction (M, 3), no row longer than ``longest``."""
    found = float(np.sqrt(np.square(displacement).sum(axis=1).max()))
    return displacement if found <= longest else displacement * (longest / found)
