"""Path-integral molecular dynamics: every nucleus is a ring of P beads, joined by springs, all beads of one number a
copy of the structure.

The copies are one batch, as replicas are. Averages over beads are those of quantum statistics for P to infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import units
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.joint_list import JointList
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.forces import Forces
from omnicalc.md.gang import own_copy
from omnicalc.md.integrators import gained
from omnicalc.md.observables import kinetic_energy
from omnicalc.md.quantum import HBAR
from omnicalc.potential import BoundPotential
from omnicalc.systems import cat

if TYPE_CHECKING:
    from omnicalc.md.job import Job
    from omnicalc.md.settings import Settings
    from omnicalc.md.state import State

_DAMPING = 0.5  # λ of PILE: friction 2 λ ω_k of the inner modes


class RingPolymer(Dynamics):
    """Langevin dynamics of ring polymers (PILE), in normal modes. States have P N atoms, bead after bead.

        H = Σ_p Σ_i [m v²/2 + m ω_P² (q_p - q_p+1)²/2] + Σ_p U(q_p),    ω_P = P k_B T/ħ,  at the temperature P T

        B   v ← v + (h/2) F(q)/m
        A   free ring polymers for h/2, exactly: modes of frequency ω_k = 2 ω_P sin(k π/P)
        O   ṽ_k ← c_k ṽ_k + sqrt((1 - c_k²) P k_B T/m) ξ,   c_k = exp(-γ_k h),  γ_0 = γ, γ_k = 2 λ ω_k
        A, B

    =======  ===================================  ===================
    symbol   variable                             unit
    =======  ===================================  ===================
    q, v     ``state.positions``, ``velocities``  Å, sqrt(eV/amu)
    ṽ        modes @ v                            sqrt(eV/amu)
    γ        ``settings.friction``                1/(Å·sqrt(amu/eV))
    λ        0.5
    =======  ===================================  ===================

    Ceriotti, Parrinello, Markland & Manolopoulos, J. Chem. Phys. 133, 124104 (2010), in the order of Liu, Li & Liu, J.
    Chem. Phys. 145, 024103 (2016).
    """

    columns = ("kinetic_primitive_eV", "kinetic_virial_eV")

    def __init__(self, job: Job, settings: Settings):
        super().__init__(job, settings)
        if len(self.fixed):
            raise InputError(
                "the structure has fixed atoms, which path-integral dynamics does not keep; take the constraints off "
                "(atoms.set_constraint()), or leave --beads out"
            )
        self.beads = settings.beads
        self.job = replace(job, bound=Beads(job.bound, self.beads))
        self.forces = Forces(self.job.bound)
        self.masses = self.masses.repeat(self.beads)
        plan = self._integration
        self._heat_quantum = self.beads * units.kB * plan.temperature_K  # P k_B T
        self.omega_P = self._heat_quantum / HBAR
        self.modes = normal_modes(self.beads, self.masses)
        index = torch.arange(self.beads, dtype=torch.float64, device=self.masses.device)
        self.omega = 2.0 * self.omega_P * torch.sin(index * math.pi / self.beads)
        friction = 2.0 * _DAMPING * self.omega
        friction[0] = plan.friction
        self._keep = torch.exp(-friction * plan.timestep)[:, None]
        self._width = torch.sqrt(-torch.expm1(-2.0 * friction * plan.timestep) * self._heat_quantum)[:, None]

    @property
    def degrees_of_freedom(self) -> int:
        return 3 * len(self.job.atoms) * self.settings.beads

    def spread(self, positions: Tensor) -> Tensor:
        """(P N, 3): rings that begin as points."""
        return positions.repeat(self.beads, 1)

    def view(self, state: State, number: int = 0) -> State:
        """A bead as a state of N atoms."""
        n, k = len(self.job.atoms), number
        return replace(
            state,
            positions=state.positions[k * n : (k + 1) * n],
            velocities=state.velocities[k * n : (k + 1) * n],
            forces=state.forces[k * n : (k + 1) * n],
            masses=state.masses[k * n : (k + 1) * n],
            energy=state.energy[k : k + 1],
        )

    def step(self, state: State) -> State:
        """One step further; one batch of P force calls."""
        h, masses = self._integration.timestep, state.masses[:, None]
        generator = state.generator.clone_state()
        noise = torch.randn(state.positions.shape, dtype=torch.float64, device=masses.device, generator=generator)
        velocities = torch.addcdiv(state.velocities, state.forces, masses, value=0.5 * h)

        q, v = self._to_modes(state.positions), self._to_modes(velocities)
        q, v = self._free(q, v, 0.5 * h)
        kick = self._to_rows(noise * masses.rsqrt())
        thermal = self._keep * v + self._width * kick
        heat = state.heat + gained(v, thermal, self._to_rows(masses.expand(-1, 3)))
        q, v = self._free(q, thermal, 0.5 * h)

        positions, velocities = self._from_modes(q), self._from_modes(v)
        energy, forces, _ = self.forces(positions)
        self.uncertainty = self.forces.uncertainty
        velocities = torch.addcdiv(velocities, forces, masses, value=0.5 * h)
        return replace(
            state, positions=positions, velocities=velocities, forces=forces, energy=energy, step=state.step + 1,
            generator=generator, heat=heat,
        )  # fmt: skip

    def measured(self, state: State) -> tuple[float, float, float]:
        """Potential energy (mean over beads), kinetic energy (virial estimator), eV; temperature of the ring polymers'
        own velocities over P, K.
        """
        kelvin = 2.0 * kinetic_energy(state) / (state.degrees_of_freedom * units.kB * self.beads)
        return float(state.energy.mean()), self.virial_kinetic(state), kelvin

    def extra(self, state: State) -> tuple[float, ...]:
        """Values of ``columns``."""
        return self.primitive_kinetic(state), self.virial_kinetic(state)

    def conserved(self, state: State, energy_eV: float) -> float:
        """H less what the bath has added, over P, eV."""
        total = kinetic_energy(state) + self.spring_energy(state) + float(state.energy.sum()) - float(state.heat)
        return total / self.beads

    def spring_energy(self, state: State) -> float:
        """Σ m ω_P² (q_p - q_p+1)²/2, eV."""
        modes = self._to_modes(state.positions)
        mass = self._to_rows(state.masses[:, None].expand(-1, 3))
        return float(0.5 * (mass * (self.omega[:, None] * modes).square()).sum())

    def primitive_kinetic(self, state: State) -> float:
        """3 N P k_B T/2 less the springs' energy over P, eV: Barker, J. Chem. Phys. 70, 2914 (1979)."""
        return 0.5 * 3 * len(self.job.atoms) * self._heat_quantum - self.spring_energy(state) / self.beads

    def virial_kinetic(self, state: State) -> float:
        """3 N k_B T/2 - Σ_p (q_p - q̄)·F_p / 2P, eV: Herman, Bruskin & Berne, J. Chem. Phys. 76, 5150 (1982). Its noise
        does not grow with P.
        """
        from_centre = state.positions - self.centroid(state).repeat(self.beads, 1)
        pull = float((from_centre * state.forces).sum())
        return (1.5 * len(self.job.atoms) * self._heat_quantum - 0.5 * pull) / self.beads

    def centroid(self, state: State) -> Tensor:
        """(N, 3), Å: mean over beads."""
        return state.positions.view(self.beads, -1, 3).mean(0)

    def _free(self, q: Tensor, v: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """Modes (P, 3 N) of free ring polymers after ``time``."""
        angle = (self.omega * time)[:, None]
        cos, sin = angle.cos(), angle.sin()
        over = torch.where(angle == 0, time, sin / self.omega.clamp(min=1e-300)[:, None])
        return q * cos + v * over, v * cos - self.omega[:, None] * q * sin

    def _to_rows(self, atoms: Tensor) -> Tensor:
        return atoms.reshape(self.beads, -1)

    def _to_modes(self, atoms: Tensor) -> Tensor:
        return rotated(self.modes, self._to_rows(atoms))

    def _from_modes(self, modes: Tensor) -> Tensor:
        return rotated(self.modes.T, modes).view(-1, 3)


class Beads:
    """A bound potential on P copies of its atoms, computed as one batch where it is one of our potentials."""

    def __init__(self, bound: Callable, count: int):
        self.count = count
        own = [own_copy(bound) for _ in range(count)]
        lists = [getattr(each, "neighbor_list", None) for each in own]
        self.neighbor_list = None if None in lists else JointList(lists)
        self.systems = cat([each.systems for each in own]) if hasattr(bound, "systems") else None
        self._own = own
        if isinstance(bound, BoundPotential):
            self._joint = BoundPotential(bound.potential, self.systems, bound.head, self.neighbor_list)
        else:
            self._joint = None

    def __call__(self, positions: Tensor):
        """At ``positions`` (P N, 3): energy (P,) and forces (P N, 3)."""
        if self._joint is not None:
            return self._joint(positions)
        found = [each(x) for each, x in zip(self._own, positions.view(self.count, -1, 3), strict=True)]
        return SimpleNamespace(
            energy=torch.cat([each.energy for each in found]), forces=torch.cat([each.forces for each in found])
        )


def rotated(matrix: Tensor, rows: Tensor) -> Tensor:
    """matrix (P, P) @ rows (P, 3 N).

    On a CPU not by a library for matrices, which would wake threads for this little. They then spin for milliseconds
    where those of the native kernel should run.
    """
    if rows.device.type != "cpu":
        return matrix @ rows
    return torch.from_numpy(np.einsum("pq,qn->pn", matrix.numpy(), rows.numpy()))


def normal_modes(beads: int, like: Tensor) -> Tensor:
    """(P, P) float64, orthogonal: rows are the modes of a ring, the first one its centre times sqrt(P)."""
    j = torch.arange(beads, dtype=torch.float64, device=like.device)
    rows = [torch.full_like(j, 1.0 / math.sqrt(beads))]
    for k in range(1, beads):
        if 2 * k == beads:
            rows.append((-1.0) ** j / math.sqrt(beads))
        else:
            wave = torch.cos if 2 * k < beads else torch.sin
            rows.append(math.sqrt(2.0 / beads) * wave(2.0 * math.pi * j * k / beads))
    return torch.stack(rows)
