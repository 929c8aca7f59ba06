"""Structures relaxed together: one force call for all that are still under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnicalc.joint_list import JointList
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import BoundPotential
from omnicalc.relaxation.walker import Found, Walker
from omnicalc.systems import Systems, cat

if TYPE_CHECKING:
    from omnicalc.potential import Potential


class Batch:
    """Walkers, the systems they are and their neighbour lists; those that are done leave the force calls."""

    def __init__(self, walkers: Sequence[Walker], systems: Sequence[Systems], potential: Potential, head: str):
        self.walkers, self.potential, self.head = list(walkers), potential, head
        self._systems = [each.to(potential.device) for each in systems]
        self._lists = [NeighborList(potential.cutoff) for _ in walkers]
        self._bound: tuple[list[int], BoundPotential] | None = None

    def relax(self, after_step: Callable[[], bool]) -> bool:
        """Until all are done, or ``after_step`` returns True; whether all are done."""
        while under_way := [k for k, walker in enumerate(self.walkers) if not walker.status]:
            for k, found in zip(under_way, self._evaluate(under_way), strict=True):
                walker = self.walkers[k]
                walker.arrive(found)
                if not walker.status:
                    walker.go()
            if after_step() and any(not walker.status for walker in self.walkers):
                return False
        return True

    def _evaluate(self, which: list[int]) -> list[Found]:
        if self._bound is None or self._bound[0] != which:
            lists = JointList([self._lists[k] for k in which])
            systems = cat([self._systems[k] for k in which])
            self._bound = which, BoundPotential(self.potential, systems, self.head, lists)
        bound = self._bound[1]
        structures = [self.walkers[k].structure() for k in which]
        device = bound.systems.device
        if self.walkers[0].settings.relax_cell:
            cells = torch.tensor(np.array([cell for _, cell in structures]), device=device)
            bound.systems = replace(bound.systems, cell=cells)
        stress = bool(bound.systems.pbc.all(1).any()) and self.potential.conservative
        positions = torch.tensor(np.concatenate([x for x, _ in structures]), device=device)
        return list(_per_structure(bound(positions, stress=stress), bound.systems))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All walkers, and where their neighbour lists were searched: forces may depend on that in their last bits."""
        arrays = {}
        for k, (walker, each) in enumerate(zip(self.walkers, self._lists, strict=True)):
            mine = walker.to_arrays()
            if each.built_at is not None and not walker.status:
                mine |= {"reference": each.built_at.positions.cpu(), "reference_cell": each.built_at.cell.cpu()}
            if walker.status:
                mine |= _result_arrays(walker)
            arrays |= {f"{k}/{name}": np.asarray(value) for name, value in mine.items()}
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what :meth:`to_arrays` gave."""
        of_walkers: list[dict[str, np.ndarray]] = [{} for _ in self.walkers]
        for name, value in arrays.items():
            number, slash, own_name = name.partition("/")
            if slash:
                of_walkers[int(number)][own_name] = value
        for k, (walker, mine) in enumerate(zip(self.walkers, of_walkers, strict=True)):
            walker.restore(mine)
            if "reference" in mine:
                device = self._systems[k].device
                at = replace(
                    self._systems[k].with_positions(torch.from_numpy(mine["reference"]).to(device)),
                    cell=torch.from_numpy(mine["reference_cell"]).to(device),
                )
                self._lists[k].rebuild_at(at)
            if walker.status:
                walker.found = Found(float(mine["found_energy"]), mine["found_forces"], mine.get("found_stress"))


def _result_arrays(walker: Walker) -> dict[str, np.ndarray]:
    found = walker.found
    arrays = {"found_energy": np.array(found.energy), "found_forces": found.forces}
    return arrays if found.stress is None else arrays | {"found_stress": found.stress}


def _per_structure(prediction, systems: Systems) -> Iterator[Found]:
    energies = prediction.energy.tolist()
    forces = prediction.forces.cpu().split(systems.counts.tolist())
    for k, (energy, mine) in enumerate(zip(energies, forces, strict=True)):
        periodic = prediction.stress is not None and bool(systems.pbc[k].all())
        yield Found(energy, mine.numpy(), prediction.stress[k].cpu().numpy() if periodic else None)
