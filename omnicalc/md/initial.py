"""The first state of a run, checked so that nothing is written for a structure that cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.md import guards
from omnicalc.md.integrators import ForcesFn
from omnicalc.md.observables import kinetic_energy, temperature
from omnicalc.md.settings import Settings
from omnicalc.md.state import State, draw_velocities, remove_com_velocity

if TYPE_CHECKING:
    from ase import Atoms


def initial_state(atoms: Atoms, forces_fn: ForcesFn, settings: Settings, device: str = "cpu") -> State:
    """State at step 0: the structure's own velocities, or Maxwell-Boltzmann at the settings' temperature.

    With ``nve`` the centre of mass is set at rest either way, and stays so. Raises :class:`InputError` for
    masses or velocities that cannot be, and for constraints, which this engine does not keep;
    :class:`RunError` when energy or forces are not finite.
    """
    _check_masses(atoms)
    if atoms.constraints:
        kinds = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        raise InputError(
            f"the structure has constraints ({kinds}), which would not be kept; "
            "remove them (atoms.set_constraint())"
        )
    generator = torch.Generator(device=device).manual_seed(settings.seed)
    masses = _tensor(atoms.get_masses(), device)
    given = given_velocities(atoms)
    velocities = (
        draw_velocities(masses, settings.temperature_K, generator)
        if given is None
        else _tensor(given, device)
    )
    com_removed = settings.ensemble == "nve"
    if com_removed:
        velocities = remove_com_velocity(velocities, masses)
    positions = _tensor(atoms.positions, device)
    energy, forces = forces_fn(positions)
    state = State(positions, velocities, forces, energy, masses, 0, generator, com_removed)
    numbers = torch.as_tensor(atoms.numbers)
    guards.check_forces(state, numbers)
    kelvin = temperature(kinetic_energy(state), state.degrees_of_freedom)
    guards.check_temperature(state, kelvin, settings.temperature_K, numbers)
    return state


def given_velocities(atoms: Atoms) -> np.ndarray | None:
    """Velocities (N, 3) of the structure, sqrt(eV/amu); None when it has none or all are zero."""
    if not atoms.has("momenta") or not atoms.get_momenta().any():
        return None
    wrong = np.flatnonzero(~np.isfinite(atoms.get_momenta()).all(axis=1))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"atom {k} ({atoms[k].symbol}) has the momentum {atoms.get_momenta()[k].tolist()}; "
            "finite ones are needed, or none"
        )
    return atoms.get_velocities()


def _check_masses(atoms: Atoms) -> None:
    masses = atoms.get_masses()
    wrong = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"atom {k} ({atoms[k].symbol}) has the mass {masses[k]} amu; a positive one is needed"
        )


def _tensor(array: np.ndarray, device: str) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float64), device=device)
