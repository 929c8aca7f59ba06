"""What stops a run before it writes nonsense."""

from __future__ import annotations

import math

import torch
from ase.data import chemical_symbols

from omnicalc.errors import RunError
from omnicalc.md.state import State

FORCE_LIMIT = 1000.0  # eV/Å; a hundred times the largest forces in hot water
TEMPERATURE_LIMIT = 10_000.0  # K, or twenty times the bath's temperature where that is more
_REMEDY = "start another run (--out) with a smaller --timestep, or from a relaxed structure"


def check_forces(state: State, numbers: torch.Tensor) -> None:
    """Refuse a state whose energy or forces are not finite or whose forces exceed ``FORCE_LIMIT``;
    ``numbers`` (N,) atomic numbers.

    Costs one reduction per step. Raises :class:`RunError` naming the step, the atom and what is wrong.
    """
    largest = float(torch.linalg.vector_norm(state.forces, math.inf))  # not finite when any component is not
    if largest <= FORCE_LIMIT and math.isfinite(float(state.energy.sum())):
        return
    bad = (~state.forces.isfinite()).any(dim=1)
    where = f"at step {state.step}"
    if bool(bad.any()):
        atom = int(bad.nonzero()[0, 0])
        raise RunError(
            f"{where} the force on {_named(atom, numbers)} is not finite: {_vector(state, atom)} eV/Å; {_REMEDY}"
        )
    if largest <= FORCE_LIMIT:
        raise RunError(f"{where} the energy is not finite: {state.energy.tolist()} eV; {_REMEDY}")
    atom = int(state.forces.abs().amax(dim=1).argmax())
    raise RunError(
        f"{where} the force on {_named(atom, numbers)} exceeds {FORCE_LIMIT:g} eV/Å: "
        f"{_vector(state, atom)} eV/Å; {_REMEDY}"
    )


def check_temperature(state: State, temperature_K: float, bath_K: float, numbers: torch.Tensor) -> None:
    """Refuse an exploding temperature. Raises :class:`RunError` naming the step and the fastest atom."""
    limit = max(TEMPERATURE_LIMIT, 20.0 * bath_K)
    if temperature_K <= limit:  # false for NaN
        return
    share = state.masses * state.velocities.square().sum(dim=1)
    raise RunError(
        f"at step {state.step} the temperature is {temperature_K:.4g} K, above {limit:g} K; "
        f"the fastest atom is {_named(int(share.argmax()), numbers)}; {_REMEDY}"
    )


def _named(atom: int, numbers: torch.Tensor) -> str:
    return f"atom {atom} ({chemical_symbols[int(numbers[atom])]})"


def _vector(state: State, atom: int) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in state.forces[atom].tolist()) + ")"
