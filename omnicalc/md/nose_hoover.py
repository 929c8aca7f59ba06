"""Nosé-Hoover chains: a deterministic thermostat with a conserved quantity."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from ase import units
from torch import Tensor

from omnicalc.errors import RunError
from omnicalc.md.integrators import ForcesFn, Integration, arrive, drift
from omnicalc.md.state import remove_com_velocity

if TYPE_CHECKING:
    from omnicalc.md.state import State

LINKS = 3
_EDGE = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_WEIGHTS = (_EDGE, 1.0 - 2.0 * _EDGE, _EDGE)  # fourth order: Yoshida, Phys. Lett. A 150, 262 (1990)


def start_chain(like: Tensor) -> Tensor:
    """(2, LINKS): a chain at rest."""
    return like.new_zeros(2, LINKS)


def nose_hoover(state: State, forces_fn: ForcesFn, settings: Integration) -> State:
    """One step of a Nosé-Hoover chain around velocity Verlet (NVT): half a step of the chain, the particles, half a
    step of the chain.

        dv/dt    = F/m - v w₁
        dw₁/dt   = (2K - f k_B T)/Q₁ - w₁ w₂
        dw_j/dt  = (Q_{j-1} w_{j-1}² - k_B T)/Q_j - w_j w_{j+1},    dη_j/dt = w_j
        Q₁ = f k_B T τ²,  Q_j = k_B T τ²

    =======  ============================  =================
    symbol   variable                      unit
    =======  ============================  =================
    η, w     ``state.bath`` (2, LINKS)     1, 1/time
    τ        ``settings.time``             Å·sqrt(amu/eV)
    f        ``state.degrees_of_freedom``
    K        kinetic energy                eV
    =======  ============================  =================

    potential + kinetic + :func:`chain_energy` is conserved but for the error of the time step. One particle system
    in a harmonic well is not ergodic with a single link; with three it is.

    Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992); Martyna, Tuckerman, Tobias & Klein, Mol. Phys. 87,
    1117 (1996).
    """
    h, masses = settings.timestep, state.masses[:, None]
    velocities = remove_com_velocity(state.velocities, state.masses) if state.com_removed else state.velocities
    bath, scale = _half_step(state.bath, velocities, state, settings)
    velocities = torch.addcdiv(scale * velocities, state.forces, masses, value=0.5 * h)
    positions, velocities = drift(state.positions, velocities, h, state, settings)
    new = arrive(state, positions, velocities, forces_fn, settings)
    bath, scale = _half_step(bath, new.velocities, state, settings)
    return replace(new, velocities=scale * new.velocities, bath=bath)


def chain_energy(bath: Tensor, freedom: int, settings: Integration) -> float:
    """Energy of the chain, eV: f k_B T η₁ + Σ_{j>1} k_B T η_j + Σ Q_j w_j²/2."""
    kT = units.kB * settings.temperature_K
    eta, w = bath.tolist()
    weights = [freedom, *[1] * (LINKS - 1)]
    return sum(
        n * kT * (eta_j + 0.5 * settings.time**2 * w_j * w_j) for n, eta_j, w_j in zip(weights, eta, w, strict=True)
    )


def _half_step(bath: Tensor, velocities: Tensor, state: State, settings: Integration) -> tuple[Tensor, float]:
    """The chain half a time step later, and the factor of the velocities; in plain numbers, faster than tensors.

    Raises :class:`RunError` for velocities far too large to follow.
    """
    twice_kinetic = float(torch.sum(velocities.square() * state.masses[:, None]))
    kT, freedom = units.kB * settings.temperature_K, state.degrees_of_freedom
    Q = [n * kT * settings.time**2 for n in (freedom, *[1] * (LINKS - 1))]
    eta, w = bath.tolist()
    scale = 1.0

    def push(j: int, h: float) -> None:
        drag = math.exp(-0.25 * h * w[j + 1]) if j + 1 < LINKS else 1.0
        force = twice_kinetic * scale * scale - freedom * kT if j == 0 else Q[j - 1] * w[j - 1] ** 2 - kT
        w[j] = (w[j] * drag + 0.5 * h * force / Q[j]) * drag

    try:
        for weight in _WEIGHTS:
            h = weight * 0.5 * settings.timestep
            for j in reversed(range(LINKS)):
                push(j, h)
            for j in range(LINKS):
                eta[j] += h * w[j]
            scale *= math.exp(-h * w[0])
            for j in range(LINKS):
                push(j, h)
    except OverflowError:
        raise RunError(
            f"at step {state.step} the kinetic energy is {0.5 * twice_kinetic:.3g} eV, beyond what a Nosé-Hoover chain "
            "follows; start another run (--out) with a smaller --timestep"
        ) from None
    return bath.new_tensor([eta, w]), scale
