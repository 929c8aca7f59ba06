"""``omnicalc md --engine openmm``: OpenMM's integrators take the steps, everything else of a run is as it always is.

Frames, log, guards and restart files are those of :mod:`omnicalc.md`. A state carries OpenMM's checkpoint, random
numbers included, so a run that was killed goes on bit for bit. For that the steps are taken on OpenMM's Reference
platform, in double precision; forces come from the bound potential, wherever that computes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError, RunError
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.forces import Evaluation
from omnicalc.md.monte_carlo import trial_volume

try:
    import openmm
    from openmm import unit
except ImportError as error:
    raise InputError(f"--engine openmm needs openmm, but {error}; type: pip install 'omnicalc[openmm]'") from None

from omnicalc.interfaces.openmm_force import KJ_PER_MOL, NM, check_version

if TYPE_CHECKING:
    from omnicalc.md.job import Job
    from omnicalc.md.settings import Settings
    from omnicalc.md.state import State

_KEPT = 3  # evaluations that are remembered: before, in and after a trial volume


class OpenMMDynamics(Dynamics):
    """Takes states one step further by OpenMM: NVE by velocity Verlet, Langevin by LangevinMiddleIntegrator.

    In the Langevin integrator velocities are those of half a step before, on which its kinetic temperature is right.
    With a barostat, trial volumes are those of :mod:`omnicalc.md.monte_carlo`: OpenMM's checkpoint does not hold the
    variables of its own Monte-Carlo barostat, so a restart could not be exact.
    """

    def __init__(self, job: Job, settings: Settings):
        super().__init__(job, settings)
        check_version()
        self._integrator_of_openmm = self._make_integrator()
        self._context: openmm.Context | None = None
        self._last: State | None = None  # the one that the context is at
        self._known: list[tuple[bytes, Evaluation]] = []
        self._error: Exception | None = None

    @property
    def has_conserved(self) -> bool:
        """OpenMM does not say what its heat bath has added to the energy."""
        return not self.settings.has_bath and super().has_conserved

    def step(self, state: State) -> State:
        """One step further; a trial move of the volume may follow."""
        context = self._at(state)
        try:
            self._integrator_of_openmm.step(1)
        except openmm.OpenMMException as error:
            raise (self._error or RunError(f"OpenMM stopped: {error}")) from error
        found = context.getState(positions=True, velocities=True)
        positions = self._tensor(found.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * NM)
        velocities = self._tensor(found.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond))
        step = state.step + 1
        wants_stress = self._integration.stress_at(step)
        energy, forces, stress = self._evaluate(positions, state.cell, wants_stress)
        new = replace(
            state,
            positions=positions,
            velocities=velocities * _VELOCITY,
            forces=forces,
            energy=energy,
            step=step,
            stress=state.stress if stress is None else stress,
            unbiased=self.forces.unbiased,
        )
        self.uncertainty = self.forces.uncertainty
        barostat = self._monte_carlo
        if barostat is not None and step % barostat.interval == 0:
            moved = trial_volume(new, self._evaluate, barostat, self._integration.temperature_K, wants_stress)
            if moved.cell is not new.cell:
                self._put(moved)
            new = moved
        self._last = replace(new, bath=_packed(context.createCheckpoint(), positions))
        return self._last

    def _make_integrator(self) -> openmm.Integrator:
        settings = self.settings
        picoseconds = 1e-3 * settings.timestep_fs
        if settings.has_bath:
            made = openmm.LangevinMiddleIntegrator(settings.temperature_K, 1e3 * settings.friction_per_fs, picoseconds)
        else:
            made = openmm.CustomIntegrator(picoseconds)
            made.addUpdateContextState()
            made.addComputePerDof("v", "v+0.5*dt*f/m")
            made.addComputePerDof("x", "x+dt*v")
            made.addComputePerDof("v", "v+0.5*dt*f/m")
        # 0 would mean one drawn by OpenMM; the checkpoint holds random numbers even where none is ever drawn
        made.setRandomNumberSeed(settings.seed % (2**31 - 2) + 1)
        return made

    def _at(self, state: State) -> openmm.Context:
        """The context, at ``state``."""
        if self._context is None:
            system = openmm.System()
            fixed = set(self.fixed.tolist())
            for k, mass in enumerate(self.masses.tolist()):
                system.addParticle(0.0 if k in fixed else mass)
            force = openmm.PythonForce(self._call)
            force.setUsesPeriodicBoundaryConditions(bool(self.job.atoms.pbc.all()))
            system.addForce(force)
            platform = openmm.Platform.getPlatformByName("Reference")
            self._context = openmm.Context(system, self._integrator_of_openmm, platform)
        if state is self._last:
            return self._context
        if len(state.bath):
            self._context.loadCheckpoint(_unpacked(state.bath))
        else:  # the first one
            self._put(state)
            self._context.setVelocities(state.velocities.cpu().numpy() / _VELOCITY)
        self._last = state
        return self._context

    def _put(self, state: State) -> None:
        if self.job.atoms.pbc.all():
            rows = np.asarray(state.cell.cpu().numpy()) / NM
            reduced = rows if _is_reduced(rows) else np.diag(np.full(3, 2.0 * np.abs(rows).sum()))
            self._context.setPeriodicBoxVectors(*reduced)
        self._context.setPositions(state.positions.cpu().numpy() / NM)

    def _call(self, state) -> tuple[float, np.ndarray]:
        """What OpenMM calls: energy, kJ/mol, and forces (N, 3), kJ/mol/nm."""
        positions = self._tensor(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * NM)
        try:
            energy, forces, _ = self._evaluate(positions, self._last.cell, False)
        except Exception as error:  # OpenMM would turn it into one of its own
            self._error = error
            raise
        return float(energy.sum()) / KJ_PER_MOL, forces.cpu().numpy() * (NM / KJ_PER_MOL)

    def _evaluate(self, positions: Tensor, cell: Tensor, stress: bool = False) -> Evaluation:
        """As :class:`omnicalc.md.forces.Forces`, but what was just computed is not computed again."""
        key = positions.cpu().numpy().tobytes() + cell.cpu().numpy().tobytes()
        for known, found in self._known:
            if known == key and (found.stress is not None or not stress):
                return found
        found = self.forces(positions, cell, stress) if self._integration.moving_cell else self.forces(positions)
        self._known = [*self._known, (key, found)][-_KEPT:]
        return found

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(np.asarray(array), device=self.job.device)


def _make_velocity() -> float:
    """ASE's unit of velocity in nm/ps: Å·sqrt(eV/amu)/Å against 1 nm/ps."""
    from ase import units

    return units.nm / (1e3 * units.fs)


_VELOCITY = _make_velocity()


def _is_reduced(rows: np.ndarray) -> bool:
    """Whether OpenMM takes these box vectors: lower triangular, and skewed by at most half an edge. The box serves
    molecules wrapped for output only, which OpenMM does not do here; forces know the true cell.
    """
    upper = np.abs([rows[0, 1], rows[0, 2], rows[1, 2]]).max()
    a, b, c = np.diag(rows)
    return bool(
        upper == 0 and min(a, b, c) > 0 and abs(rows[1, 0]) <= a / 2 and abs(rows[2, 0]) <= a / 2
        and abs(rows[2, 1]) <= b / 2
    )  # fmt: skip


def _packed(checkpoint: bytes, like: Tensor) -> Tensor:
    return torch.tensor(np.frombuffer(checkpoint, dtype=np.uint8).astype(np.float64), device=like.device)


def _unpacked(bath: Tensor) -> bytes:
    return bath.cpu().numpy().astype(np.uint8).tobytes()
