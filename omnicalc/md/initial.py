"""The first state of a run, checked so that nothing is written for a structure that cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.guards import Guards
from omnicalc.md.settings import Settings
from omnicalc.md.state import State, draw_velocities, remove_com_velocity

if TYPE_CHECKING:
    from ase import Atoms


def initial_state(atoms: Atoms, dynamics: Dynamics, settings: Settings, guards: Guards, device: str = "cpu") -> State:
    """State at step 0: the structure's own velocities, or Maxwell-Boltzmann at the settings' temperature.

    Fixed atoms are at rest, and constrained bonds have their lengths; where the dynamics keeps the momentum, the centre
    of mass is set at rest and stays so. Raises :class:`InputError` for velocities that cannot be,
    :class:`omnicalc.errors.RunError` when energy, forces or temperature are such that the run would stop at once.
    """
    generator = torch.Generator(device=device).manual_seed(settings.seed)
    masses = dynamics.masses
    given = given_velocities(atoms, settings)
    velocities = (
        draw_velocities(masses, settings.temperature_K * max(settings.beads, 1), generator)
        if given is None
        else _tensor(given, device)
    )
    if len(dynamics.fixed):
        velocities = velocities.index_fill(0, torch.tensor(dynamics.fixed, device=device), 0.0)
    cell = _tensor(atoms.cell.array, device)
    positions = dynamics.spread(dynamics.held(_tensor(atoms.positions, device), cell))
    if dynamics.constraints is not None:
        velocities = dynamics.constraints.tangent(velocities, positions, cell)
    if dynamics.com_removed:
        velocities = remove_com_velocity(velocities, masses)
    state = State.start(
        positions,
        velocities,
        masses=masses,
        generator=generator,
        com_removed=dynamics.com_removed,
        taken=dynamics.taken,
        cell=cell,
        **dynamics.start(positions, cell, generator),
    )
    _, kinetic, kelvin = dynamics.measured(state)
    for view in dynamics.views(state):
        guards.check_step(view)
        guards.check_frame(view, kelvin)
    first = dynamics.view(state)
    guards.check_uncertainty(first, dynamics.uncertainty)
    guards.check_bonds(first, lambda: dynamics.centroid(state))
    guards.check_surroundings(first)
    if not kinetic > 0 and settings.bath == "bussi":
        raise InputError("no atom that may move has a velocity, and bussi scales velocities; use --thermostat langevin")
    return state


def given_velocities(atoms: Atoms, settings: Settings) -> np.ndarray | None:
    """Velocities (N, 3) that the structure gives the run, sqrt(eV/amu); None when they are to be drawn, as it has none
    or all are zero, or for beads, of which those of a classical run say nothing.
    """
    if settings.beads or not atoms.has("momenta") or not atoms.get_momenta().any():
        return None
    wrong = np.flatnonzero(~np.isfinite(atoms.get_momenta()).all(axis=1))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"atom {k} ({atoms[k].symbol}) has the momentum {atoms.get_momenta()[k].tolist()}; "
            "finite ones are needed, or none"
        )
    return atoms.get_velocities()


def _tensor(array: np.ndarray, device: str) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float64), device=device)
