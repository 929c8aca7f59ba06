"""One moment of a run as ``ase.Atoms``, for files: a structure with what the potential says of it."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from omnicalc.md.dynamics import fixed_atoms
from omnicalc.md.saving import frame_info

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.md.state import State


def blank(atoms: Atoms, fix: str) -> Atoms:
    """A copy of ``atoms`` for :func:`fill`, with those held that ``fix`` (--fix) and the file have fixed."""
    from ase.constraints import FixAtoms

    frame, fixed = atoms.copy(), fixed_atoms(atoms, fix)
    frame.set_constraint(FixAtoms(fixed) if len(fixed) else None)
    return frame


def fill(frame: Atoms, state: State, timestep_fs: float, words: Container[str] = ("forces", "velocities")) -> Atoms:
    """``frame``, changed in place to be ``state`` in the run's own orientation, with energy (eV) and, where ``words``
    ask for them, forces (eV/Å) and momenta (ASE's unit).

    Energy and forces are the potential's own, as labels must be; what springs add is ``info["restraint_energy"]``, eV.
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    frame.positions[:] = state.positions.cpu().numpy()
    frame.cell[:] = state.cell.cpu().numpy()
    frame.info = frame_info(frame, state.step, timestep_fs)
    if "velocities" in words:
        frame.set_masses(state.masses.cpu().numpy())
        frame.set_velocities(state.velocities.cpu().numpy())
    elif frame.has("momenta"):
        del frame.arrays["momenta"]
    own = state.unbiased or state
    results = {"energy": float(own.energy.sum())}
    if "forces" in words:
        results["forces"] = own.forces.cpu().numpy()
    if own.energy is not state.energy:  # there are springs
        frame.info["restraint_energy"] = float(state.energy.sum() - own.energy.sum())
    frame.calc = SinglePointCalculator(frame, **results)
    return frame
