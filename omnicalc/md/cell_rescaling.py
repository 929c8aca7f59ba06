"""Stochastic cell rescaling: a barostat of first order with the right fluctuations of the volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import units
from torch import Tensor

from omnicalc.errors import RunError

if TYPE_CHECKING:
    from omnicalc.md.state import State

_LARGEST = 0.1  # strain of one move; far more than a cell near equilibrium makes


@dataclass(frozen=True)
class CellRescaling:
    """What the barostat needs to know, in internal units."""

    pressure: float  # eV/Å^3
    time: float  # ASE time units, relaxation time τ of the pressure
    compressibility: float  # Å^3/eV, β; only β/τ matters, and only for the speed
    interval: int  # steps between moves of the cell
    coupling: str  # isotropic, semi-isotropic or anisotropic


def strained(
    state: State,
    positions: Tensor,
    velocities: Tensor,
    barostat: CellRescaling,
    temperature_K: float,
    timestep: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (N, 3), velocities (N, 3) and cell (3, 3) after one move of the cell; advances ``generator``.

        A  = Π[ -(β/3τ) (P₀ - P) t + sqrt(2 k_B T β t / 3 V τ) ξ ]
        r' = r e^A,   h' = h e^A,   v' = v e^-A,    P = (Σ m v⊗v)/V - stress + (k_B T/V if the centre of mass rests)

    =======  ====================================  ==============================================
    symbol   variable                              unit
    =======  ====================================  ==============================================
    A        strain (3, 3), symmetric
    h        ``cell`` (3, 3), rows                 Å
    P₀, P    ``pressure``, inner pressure (3, 3)   eV/Å^3
    β, τ     ``compressibility``, ``time``         Å^3/eV, Å·sqrt(amu/eV)
    t        ``timestep * interval``               Å·sqrt(amu/eV)
    V        volume                                Å^3
    ξ        symmetrised normals (3, 3)            variance 1 on the diagonal, 1/2 beside it
    Π        onto the strains of the coupling      multiples of 1; diag(a, a, b); all
    =======  ====================================  ==============================================

    Written for the logarithm of the cell, where the drift k_B T/V of the equation for the volume (Bernetti & Bussi)
    and for the cell (Del Tatto et al.) is gone: A is the increment of Brownian motion on the group of cells, whose
    invariant measure times V is that of the isothermal-isobaric ensemble, uniform in V. Scaling the momenta the
    other way keeps phase-space volume. A centre of mass at rest has no momentum to scale for its position, hence its
    k_B T/V. A symmetric strain does not turn the cell.

    The stress is that of the last force call, the velocities are those of half a step later, whose
    kinetic energy fits the positions better than that of a full step.

    Bernetti & Bussi, J. Chem. Phys. 153, 114107 (2020); Del Tatto, Raiteri, Bernetti & Bussi, Appl. Sci. 12, 1139
    (2022). Raises :class:`RunError` for a strain beyond 0.1.
    """
    volume, kT = state.volume, units.kB * temperature_K
    kinetic = ((state.masses[:, None] * velocities).T @ velocities).cpu().numpy()
    inner = kinetic / volume - state.stress.cpu().numpy()
    outer = barostat.pressure - (kT / volume if state.com_removed else 0.0)
    normal = torch.randn(3, 3, dtype=torch.float64, device=positions.device, generator=generator).cpu().numpy()
    speed = barostat.compressibility * timestep * barostat.interval / (3.0 * barostat.time)
    strain = -speed * (outer * np.eye(3) - inner) + math.sqrt(2.0 * kT * speed / volume) * normal
    strain = projected(strain, barostat.coupling)
    _check(strain, state)
    rates, axes = np.linalg.eigh(strain)
    stretch, back = (positions.new_tensor(axes * np.exp(s * rates) @ axes.T) for s in (1.0, -1.0))
    return positions @ stretch, velocities @ back, state.cell @ stretch


def projected(strain: np.ndarray, coupling: str) -> np.ndarray:
    """``strain`` (3, 3) as far as the coupling lets the cell follow, symmetric."""
    if coupling == "anisotropic":
        return 0.5 * (strain + strain.T)
    a, b, c = strain.diagonal()
    if coupling == "isotropic":
        a = b = c = (a + b + c) / 3.0
    else:
        a = b = 0.5 * (a + b)
    return np.diag([a, b, c])


def _check(strain: np.ndarray, state: State) -> None:
    largest = float(np.abs(strain).max())
    if largest <= _LARGEST:
        return
    virial = -float(state.stress.trace()) / 3.0 / units.bar
    raise RunError(
        f"at step {state.step + 1} the barostat would strain the cell by {largest:.3g} in one move, above {_LARGEST}; "
        f"the virial pressure is {virial:.4g} bar. Start another run (--out) from a structure relaxed at about this "
        "volume, or with a larger --barostat-time"
    )
