"""Integrators: pure functions that take a state one step further, with one force call each.

``step(state, forces_fn, settings) -> State``. ``forces_fn`` maps positions (N, 3) to the potential energy
(S,) and the forces (N, 3), in eV and eV/Å; where the cell moves or stress is wanted it is called as
:class:`omnicalc.md.forces.Forces`. Nothing is changed in place; the same state gives the same next state, random
numbers included. The thermostats that rescale velocities are in :mod:`bussi`, :mod:`nose_hoover` and
:mod:`quantum`, beside this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from ase import units
from torch import Tensor

from omnicalc.md.cell_rescaling import CellRescaling, strained
from omnicalc.md.state import State

if TYPE_CHECKING:
    from omnicalc.md.constraints import Constraints
    from omnicalc.md.quantum import QuantumBath

ForcesFn = Callable[..., tuple]


@dataclass(frozen=True)
class Integration:
    """What an integrator needs to know, in internal units."""

    timestep: float  # ASE time units, Å·sqrt(amu/eV)
    temperature_K: float = 0.0  # noqa: N815 - of the heat bath; not used by velocity Verlet
    friction: float = 0.0  # per ASE time unit; of Langevin dynamics and the quantum bath
    time: float = math.inf  # ASE time units; relaxation time of velocity rescaling and Nosé-Hoover chains
    mobile: Tensor | None = None  # (N, 1) float64, 0 for fixed atoms, which get no noise, else 1; None: all move
    rescaling: CellRescaling | None = None  # stochastic cell rescaling; None: not that barostat
    moving_cell: bool = False  # whether any barostat acts, so that every force call needs the cell
    quantum: QuantumBath | None = None  # noise of the quantum thermal bath
    stress_at: Callable[[int], bool] = lambda step: False  # whether the state after this step needs its stress
    constraints: Constraints | None = None  # bonds of fixed length

    @classmethod
    def from_fs(
        cls, timestep_fs: float, temperature_K: float = 0.0, friction_per_fs: float = 0.0, **more
    ) -> Integration:
        return cls(timestep_fs * units.fs, temperature_K, friction_per_fs / units.fs, **more)


def drift(
    positions: Tensor, velocities: Tensor, time: float, state: State, settings: Integration
) -> tuple[Tensor, Tensor]:
    """Positions (N, 3) after ``time``, and the velocities (N, 3) that lead there: the same ones but for the pull of
    constraints along the bonds at ``positions``.
    """
    free = torch.add(positions, velocities, alpha=time)
    if settings.constraints is None:
        return free, velocities
    held = settings.constraints.onto(free, positions, state.cell)
    return held, torch.add(velocities, held - free, alpha=1.0 / time)


def tangent(velocities: Tensor, positions: Tensor, state: State, settings: Integration) -> Tensor:
    """Velocities (N, 3) less what would change the length of a constrained bond at ``positions``."""
    if settings.constraints is None:
        return velocities
    return settings.constraints.tangent(velocities, positions, state.cell)


def arrive(
    state: State, positions: Tensor, velocities: Tensor, forces_fn: ForcesFn, settings: Integration, **changed
) -> State:
    """The end of every step, at ``positions`` with the velocities of half a step before: the cell is rescaled where
    that is due, then comes the force call and the last half kick.
    """
    step, cell = state.step + 1, state.cell
    rescaling = settings.rescaling
    if rescaling is not None and step % rescaling.interval == 0:
        generator = changed.setdefault("generator", state.generator.clone_state())
        positions, velocities, cell = strained(
            state, positions, velocities, rescaling, settings.temperature_K, settings.timestep, generator
        )
    wants_stress = settings.stress_at(step)
    if settings.moving_cell or wants_stress:
        energy, forces, *rest = forces_fn(positions, cell, wants_stress)
    else:
        energy, forces, *rest = forces_fn(positions)
    stress = state.stress
    if wants_stress:
        stress = rest[0] if rest[0] is not None else torch.full_like(cell, torch.nan)
    velocities = torch.addcdiv(velocities, forces, state.masses[:, None], value=0.5 * settings.timestep)
    velocities = tangent(velocities, positions, state, settings)
    return replace(
        state,
        positions=positions,
        velocities=velocities,
        forces=forces,
        energy=energy,
        step=step,
        cell=cell,
        stress=stress,
        **changed,
    )


def velocity_verlet(state: State, forces_fn: ForcesFn, settings: Integration) -> State:
    """One step of velocity Verlet: Newton's equations (NVE), time-reversible, error of second order.

        v_½ = v + (h/2) F(x)/m
        x'  = x + h v_½
        v'  = v_½ + (h/2) F(x')/m

    =======  =========================  =========================
    symbol   variable                   unit
    =======  =========================  =========================
    x        ``positions`` (N, 3)       Å
    v        ``velocities`` (N, 3)      sqrt(eV/amu)
    F        ``forces`` (N, 3)          eV/Å
    m        ``masses`` (N,)            amu
    h        ``settings.timestep``      Å·sqrt(amu/eV)
    =======  =========================  =========================

    With constrained bonds this is RATTLE. Swope, Andersen, Berens & Wilson, J. Chem. Phys. 76, 637 (1982); Andersen, J.
    Comput. Phys. 52, 24 (1983).
    """
    h, masses = settings.timestep, state.masses[:, None]
    velocities = torch.addcdiv(state.velocities, state.forces, masses, value=0.5 * h)
    positions, velocities = drift(state.positions, velocities, h, state, settings)
    return arrive(state, positions, velocities, forces_fn, settings)


def baoab(state: State, forces_fn: ForcesFn, settings: Integration) -> State:
    """One step of BAOAB: Langevin dynamics (NVT), with exact configurations in a harmonic well.

        B   v ← v + (h/2) F(x)/m
        A   x ← x + (h/2) v
        O   v ← c v + sqrt((1 - c²) k_B T / m) ξ,    c = exp(-γ h)
        A   x ← x + (h/2) v
        B   v ← v + (h/2) F(x)/m          (the one force call of the step)

    =======  =========================  =========================
    symbol   variable                   unit
    =======  =========================  =========================
    x        ``positions`` (N, 3)       Å
    v        ``velocities`` (N, 3)      sqrt(eV/amu)
    F        ``forces`` (N, 3)          eV/Å
    m        ``masses`` (N,)            amu
    h        ``settings.timestep``      Å·sqrt(amu/eV)
    γ        ``settings.friction``      1/(Å·sqrt(amu/eV))
    T        ``settings.temperature_K`` K
    ξ        ``noise`` (N, 3)           independent standard normals
    =======  =========================  =========================

    The bath acts on every atom that is not fixed, so all 3N degrees of freedom are thermal and the centre of mass
    diffuses. In a harmonic well of frequency ω the variance of x is exactly k_B T / (m ω²) at any stable step, and
    m⟨v²⟩ = k_B T (1 - (ω h)²/4): kinetic temperatures read low by O(h²) while the structure is right. What O adds
    to the kinetic energy is kept in ``heat``: potential + kinetic - heat moves only by the error of the time step.

    Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34; J. Chem. Phys. 138, 174102 (2013); with constrained
    bonds each A is one of RATTLE and O acts in the tangent space: Proc. R. Soc. A 472, 20160138 (2016).
    """
    h, masses = settings.timestep, state.masses[:, None]
    keep = math.exp(-settings.friction * h)
    width = math.sqrt(-math.expm1(-2.0 * settings.friction * h) * units.kB * settings.temperature_K)
    generator = state.generator.clone_state()  # the old state keeps its own place in the random sequence
    noise = torch.randn(masses.shape[0], 3, dtype=torch.float64, device=masses.device, generator=generator)

    velocities = torch.addcdiv(state.velocities, state.forces, masses, value=0.5 * h)
    positions, velocities = drift(state.positions, velocities, 0.5 * h, state, settings)
    velocities = tangent(velocities, positions, state, settings)
    if settings.mobile is not None:
        noise = noise * settings.mobile
    # sqrt would wake MKL's threads, which then spin for milliseconds where those of the native kernel should run
    thermal = torch.addcmul(keep * velocities, noise, masses.rsqrt(), value=width)
    thermal = tangent(thermal, positions, state, settings)
    heat = state.heat + gained(velocities, thermal, masses)
    positions, thermal = drift(positions, thermal, 0.5 * h, state, settings)
    return arrive(state, positions, thermal, forces_fn, settings, generator=generator, heat=heat)


def gained(before: Tensor, after: Tensor, masses: Tensor) -> Tensor:
    """Kinetic energy (), eV, of velocities ``after`` (N, 3) less that of ``before``; ``masses`` (N, 1)."""
    return 0.5 * torch.sum((after - before) * (after + before) * masses)
