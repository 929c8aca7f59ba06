"""Stochastic velocity rescaling: one factor for all velocities, so that the kinetic energy is canonical."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from ase import units

from omnicalc.errors import RunError
from omnicalc.md.integrators import ForcesFn, Integration, arrive, drift
from omnicalc.md.state import remove_com_velocity

if TYPE_CHECKING:
    from omnicalc.md.state import State


def bussi(state: State, forces_fn: ForcesFn, settings: Integration) -> State:
    """One step of stochastic velocity rescaling, then of velocity Verlet (NVT).

        α²  = c + (1 - c) (K̄ / f K) (R₁² + S) + 2 R₁ sqrt(c (1 - c) K̄ / f K),    c = exp(-h/τ)
        v   ← α v,  then velocity Verlet

    =======  ================================  ================================================
    symbol   variable                          unit
    =======  ================================  ================================================
    h        ``settings.timestep``             Å·sqrt(amu/eV)
    τ        ``settings.time``                 Å·sqrt(amu/eV)
    f        ``state.degrees_of_freedom``      without fixed atoms and a resting centre of mass
    K, K̄     kinetic energy, f k_B T / 2       eV
    R₁, S    a normal, a sum of f - 1 squares  independent standard normals
    =======  ================================  ================================================

    All velocities change by one factor, so diffusion and other dynamics are hardly disturbed. α takes the sign of
    R₁ + sqrt(c f K / ((1 - c) K̄)), which matters for few degrees of freedom only. What is added to the
    kinetic energy is kept in ``heat``: potential + kinetic - heat is conserved but for the error of the time step.

    Raises :class:`RunError` for velocities that no factor makes thermal: all zero, or too large for a number.

    Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007), eq. (A7); sign: eq. (A8).
    """
    h, masses, freedom = settings.timestep, state.masses[:, None], state.degrees_of_freedom
    generator = state.generator.clone_state()
    noise = torch.randn(freedom, dtype=torch.float64, device=masses.device, generator=generator)
    velocities = remove_com_velocity(state.velocities, state.masses) if state.com_removed else state.velocities
    kinetic = 0.5 * float(torch.sum(velocities.square() * masses))
    if not 0.0 < kinetic < math.inf:
        remedy = "a smaller --timestep" if kinetic else "--thermostat langevin"
        raise RunError(
            f"at step {state.step} the kinetic energy is {kinetic} eV, which no factor makes thermal; start another "
            f"run (--out) with {remedy}"
        )
    first = float(noise[0])
    alpha = factor(kinetic, freedom, settings, first, float(noise.square().sum()) - first * first)

    heat = state.heat + (alpha * alpha - 1.0) * kinetic
    velocities = torch.addcdiv(alpha * velocities, state.forces, masses, value=0.5 * h)
    positions, velocities = drift(state.positions, velocities, h, state, settings)
    return arrive(state, positions, velocities, forces_fn, settings, generator=generator, heat=heat)


def factor(kinetic: float, freedom: int, settings: Integration, normal: float, squares: float) -> float:
    """α for a kinetic energy in eV, from R₁ and S."""
    keep = math.exp(-settings.timestep / settings.time)
    share = -math.expm1(-settings.timestep / settings.time) * units.kB * settings.temperature_K / (2.0 * kinetic)
    squared = keep + share * (normal * normal + squares) + 2.0 * normal * math.sqrt(keep * share)
    return math.copysign(math.sqrt(max(squared, 0.0)), normal * math.sqrt(share) + math.sqrt(keep))
