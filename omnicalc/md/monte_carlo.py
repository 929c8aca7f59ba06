"""Monte-Carlo barostat: trial volumes, accepted by energy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from ase import units
from torch import Tensor

if TYPE_CHECKING:
    from omnicalc.md.integrators import ForcesFn
    from omnicalc.md.state import State

_FIRST = 0.01  # of the volume: the width of trial moves at the start
_WIDEST = 0.5  # of the volume at the start: a bound that changed with the volume would spoil detailed balance
_AXES = {  # kinds of trial moves: the lattice vectors that each one stretches
    "isotropic": ((0, 1, 2),),
    "semi-isotropic": ((0, 1), (2,)),
    "anisotropic": ((0,), (1,), (2,)),
}


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """What the barostat needs to know; see :mod:`omnicalc.md.molecules` for the last three."""

    pressure: float  # eV/Å^3
    interval: int  # steps between trial moves
    coupling: str  # a key of _AXES
    molecule: Tensor  # (N,) int64
    images: Tensor  # (N, 3) float64
    count: int  # molecules


def start_widths(volume: float, coupling: str, like: Tensor) -> Tensor:
    """(kinds, 4) float64, per kind of move: logarithm of the width in Å^3, trial moves and accepted ones so far,
    logarithm of the largest width.
    """
    row = [math.log(_FIRST * volume), 0.0, 0.0, math.log(_WIDEST * volume)]
    return like.new_tensor([row] * len(_AXES[coupling]))


def trial_volume(
    state: State, forces_fn: ForcesFn, barostat: MonteCarlo, temperature_K: float, wants_stress: bool = False
) -> State:
    """The state after one trial move of the volume, taken or not; one force call.

        V' = V + w (2u - 1),   centres of molecules keep their fractional coordinates, molecules their shape
        accepted with probability  min(1, exp(-[U' - U + P₀ (V' - V) - M k_B T ln(V'/V)] / k_B T))

    =======  ==================================  ==========
    symbol   variable                            unit
    =======  ==================================  ==========
    V        volume                              Å^3
    w        from ``state.barostat``             Å^3
    P₀       ``barostat.pressure``               eV/Å^3
    M        ``barostat.count``, molecules
    u        uniform in [0, 1)
    =======  ==================================  ==========

    A move stretches the lattice vectors of one kind, drawn with equal odds: all three, the first two or the third,
    or a single one, so that angles stay and any cell will do. The width moves towards an acceptance of one half by
    steps that shrink as (trial moves)^-0.6, so that in the long run it rests. Velocities stay as they are. What an
    accepted move adds to the potential energy is kept in ``heat``.

    Chow & Ferguson, Comput. Phys. Commun. 91, 283 (1995); Åqvist et al., Chem. Phys. Lett. 384, 288 (2004);
    width: Robbins & Monro, Ann. Math. Stat. 22, 400 (1951).
    """
    generator = state.generator.clone_state()
    draws = torch.rand(3, dtype=torch.float64, device=state.positions.device, generator=generator).tolist()
    axes = _AXES[barostat.coupling]
    kind = min(int(draws[0] * len(axes)), len(axes) - 1)
    width = math.exp(float(state.barostat[kind, 0]))
    volume, kT = state.volume, units.kB * temperature_K
    larger = volume + width * (2.0 * draws[1] - 1.0)

    taken, changed = False, {}
    if larger > 0:
        positions, cell = stretched(state, barostat, axes[kind], larger / volume)
        energy, forces, *rest = forces_fn(positions, cell, wants_stress)
        gain = float(energy.sum()) - float(state.energy.sum())
        cost = gain + barostat.pressure * (larger - volume) - barostat.count * kT * math.log(larger / volume)
        taken = cost <= 0.0 or draws[2] < math.exp(-cost / kT) if math.isfinite(cost) else False
    if taken:
        changed = {"positions": positions, "cell": cell, "energy": energy, "forces": forces}
        changed["heat"] = state.heat + gain
        if wants_stress:
            changed["stress"] = rest[0] if rest[0] is not None else torch.full_like(cell, torch.nan)
    widths = _adapted(state.barostat, kind, taken)
    return replace(state, generator=generator, barostat=widths, **changed)


def stretched(state: State, barostat: MonteCarlo, axes: tuple[int, ...], ratio: float) -> tuple[Tensor, Tensor]:
    """Positions (N, 3) and cell (3, 3) when lattice vectors ``axes`` grow so that the volume does by ``ratio``."""
    cell = state.cell.clone()
    cell[list(axes)] *= ratio ** (1.0 / len(axes))
    change = torch.linalg.solve(state.cell, cell) - torch.eye(3, dtype=cell.dtype, device=cell.device)
    whole, centres = centres_of_mass(state, barostat)
    moved = whole + (centres @ change).index_select(0, barostat.molecule)
    return moved - barostat.images @ cell, cell


def centres_of_mass(state: State, barostat: MonteCarlo) -> tuple[Tensor, Tensor]:
    """Positions (N, 3), Å, with every molecule in one piece, and the centres (count, 3) of those."""
    whole = state.positions + barostat.images @ state.cell
    weight = state.masses[:, None]
    sums = whole.new_zeros(barostat.count, 3).index_add(0, barostat.molecule, weight * whole)
    total = whole.new_zeros(barostat.count, 1).index_add(0, barostat.molecule, weight)
    return whole, sums / total


def _adapted(widths: Tensor, kind: int, taken: bool) -> Tensor:
    log_width, trials, accepted, widest = widths[kind].tolist()
    log_width += (float(taken) - 0.5) / (1.0 + trials) ** 0.6
    widths = widths.clone()
    widths[kind] = widths.new_tensor([min(log_width, widest), trials + 1.0, accepted + float(taken), widest])
    return widths
