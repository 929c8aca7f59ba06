"""What an optimiser moves: the atoms of one structure, and its cell where that is to relax."""

from __future__ import annotations

import numpy as np

from omnicalc.md.cell_rescaling import projected


class Atoms3N:
    """Positions alone; ``fixed`` (M,) indices feel no force."""

    def __init__(self, positions: np.ndarray, cell: np.ndarray, fixed: np.ndarray):
        self.x, self._cell, self._fixed = positions.copy(), cell, fixed

    def structure(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 3) and cell (3, 3), Å."""
        return self.x, self._cell

    def forces(self, forces: np.ndarray, stress: np.ndarray | None) -> np.ndarray:
        """Minus the gradient in these coordinates, from forces (N, 3) and stress (3, 3)."""
        return free(forces, self._fixed)


class AtomsAndCell:
    """Positions and cell of a structure strained by F = e^A, A symmetric:

        r = x F,   h = h₀ F,   with x the positions before the strain
        -dH/dx = f F,   -dH/dA = -[G]_A (V (stress + P) F⁻¹),   H = U + P V

    [G]_A is the derivative of the exponential at A, which is its own transpose: in the axes of A the components are
    multiplied by (e^a_i - e^a_j) / (a_i - a_j). The three rows n A follow the N rows of x, n the number of atoms, so
    that both kinds of coordinate are about as stiff. In the logarithm of the strain a cell cannot turn inside out.

    Tadmor, Smith, Bernstein & Kaxiras, Phys. Rev. B 59, 235 (1999), with the logarithm in place of the strain.
    """

    def __init__(self, positions: np.ndarray, cell: np.ndarray, coupling: str, pressure: float):
        """``pressure`` in eV/Å^3; ``coupling``: what of the cell moves, see ``cell_rescaling.projected``."""
        self._start, self._coupling, self._pressure = cell, coupling, pressure
        self._scale = float(len(positions))
        self.x = np.concatenate([positions, np.zeros((3, 3))])

    def structure(self) -> tuple[np.ndarray, np.ndarray]:
        rates, axes = self._rates_and_axes()
        stretch = axes * np.exp(rates) @ axes.T
        return self.x[:-3] @ stretch, self._start @ stretch

    def forces(self, forces: np.ndarray, stress: np.ndarray) -> np.ndarray:
        rates, axes = self._rates_and_axes()
        stretch, back = (axes * np.exp(s * rates) @ axes.T for s in (1.0, -1.0))
        volume = abs(np.linalg.det(self._start @ stretch))
        pull = -volume * (stress + self._pressure * np.eye(3)) @ back
        inner = axes.T @ (0.5 * (pull + pull.T)) @ axes
        on_cell = projected(axes @ (inner * _slopes(rates)) @ axes.T, self._coupling)
        return np.concatenate([forces @ stretch, on_cell / self._scale])

    def _rates_and_axes(self) -> tuple[np.ndarray, np.ndarray]:
        strain = self.x[-3:] / self._scale
        return np.linalg.eigh(0.5 * (strain + strain.T))


def _slopes(rates: np.ndarray) -> np.ndarray:
    """(e^a_i - e^a_j) / (a_i - a_j), e^a_i where the two are the same."""
    half = 0.5 * (rates[:, None] - rates)
    mean = np.exp(0.5 * (rates[:, None] + rates))
    safe = np.where(np.abs(half) < 1e-8, 1.0, half)
    return mean * np.where(np.abs(half) < 1e-8, 1.0, np.sinh(half) / safe)


def free(forces: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Forces (N, 3), zero on the atoms ``fixed``."""
    forces = forces.copy()
    forces[fixed] = 0.0
    return forces
