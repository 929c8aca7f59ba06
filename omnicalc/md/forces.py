"""The forces of a run: those of the bound potential and of restraints, less those on fixed atoms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

Restraint = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions (N, 3) -> energy (), eV, and forces (N, 3)


class Evaluation(NamedTuple):
    """What a potential says of one set of positions; as a tuple, what integrators expect."""

    energy: Tensor  # (S,), eV
    forces: Tensor  # (N, 3), eV/Å
    stress: Tensor | None = None  # (3, 3), eV/Å^3, positive under tension; None: not asked for, or not known


class Forces:
    """Positions, and the cell where it moves, to energy, forces and stress.

    ``bound``: called with positions (N, 3) float64, Å, gives an object with ``energy`` (S,) and ``forces`` (N, 3);
    with ``stress=True`` also ``stress`` (1, 3, 3). Where the cell moves, ``bound.systems.cell`` is what it
    computes with: it is replaced, never changed in place, before the next call.
    """

    def __init__(
        self,
        bound: Callable,
        restraints: Sequence[Restraint] = (),
        fixed: Tensor | None = None,
        balanced: bool = False,
    ):
        """``fixed`` (M,) int64: atoms that feel no force. ``balanced``: the potential's forces are shifted so that they
        add up to zero, which those that are no gradient do not: they would push a centre of mass that is to rest.
        """
        self.bound, self.restraints, self.fixed, self.balanced = bound, tuple(restraints), fixed, balanced
        self.uncertainty: Tensor | None = None  # (N,), eV/Å, of the last call; None where the potential knows none
        self.unbiased: Evaluation | None = None  # the potential's own of the last call; None where nothing changes it

    def __call__(self, positions: Tensor, cell: Tensor | None = None, stress: bool = False) -> Evaluation:
        """At ``positions`` (N, 3), in ``cell`` (3, 3); None: in the cell as it is."""
        if cell is not None:
            follow(self.bound, cell)
        found = self.bound(positions, stress=True) if stress else self.bound(positions)
        energy, forces = found.energy.detach(), found.forces.detach()
        changed = self.balanced or self.restraints or self.fixed is not None
        self.unbiased = Evaluation(energy, forces) if changed else None
        if self.balanced:
            forces = forces - forces.mean(0)
        self.uncertainty = getattr(found, "forces_std", None)
        for restraint in self.restraints:
            more_energy, more_forces = restraint(positions)
            energy, forces = energy + more_energy, forces + more_forces
        if self.fixed is not None:
            forces = forces.index_fill(0, self.fixed, 0.0)
        tension = getattr(found, "stress", None) if stress else None
        return Evaluation(energy, forces, None if tension is None else tension.detach().reshape(3, 3))


def follow(bound: Callable, cell: Tensor) -> None:
    """Let ``bound`` compute in ``cell`` (3, 3), Å, from now on; its neighbour list notices by itself."""
    if not bool((bound.systems.cell[0] == cell).all()):
        bound.systems = replace(bound.systems, cell=cell.clone()[None])
