"""Tells, once, that atoms stand in surroundings that the weights have not learned."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from omnicalc.batches import batches
from omnicalc.errors import OmniCalcWarning
from omnicalc.surroundings import surroundings
from omnicalc.systems import Systems, cat

if TYPE_CHECKING:
    from torch import Tensor

    from omnicalc.known_surroundings import Unlike
    from omnicalc.potential import Potential

_EVERY = 100  # calls of the same atoms: a look costs about as much as computing forces
_ATOMS = 20_000  # looked at together
# weights and heads of which this process was told: not kept by calculators, as scripts may make one per structure
_told: set[tuple[str, str]] = set()


class Watch:
    """Looks at the structures of many calls: at the first of all that have the same atoms, and at every hundredth."""

    def __init__(self):
        self._numbers: np.ndarray | None = None
        self._calls = 0

    def look(self, potential: Potential, head: str, systems: Systems) -> None:
        """Warn of ``systems``, one structure, if it is due."""
        numbers = systems.numbers.numpy()
        same = self._numbers is not None and np.array_equal(numbers, self._numbers)
        self._numbers, self._calls = numbers, self._calls + 1 if same else 0
        if self._calls % _EVERY == 0:
            warn_if_unlike(potential, head, [systems])


def warn_if_unlike(potential: Potential, head: str, structures: Sequence[Systems]) -> None:
    """One :class:`OmniCalcWarning` where atoms of any of ``structures`` (on the CPU) are in surroundings that the
    training data of ``head`` do not have; none if this process had one of these weights and this head, or where those
    of the data are not known.
    """
    these = potential.name_resolved, head
    if these in _told or head not in potential.known_surroundings:
        return
    first, example, count = "", structures[0], 0
    for members in batches([s.n_atoms for s in structures], _ATOMS):
        batch = cat([structures[k] for k in members])
        found = unlike(potential, head, batch)
        if found is None:
            continue
        bad = batch.system[found.atoms]
        count += len(bad.unique())
        k = members[int(batch.system[found.atom])]
        if not first:
            where = f"structure {k} (from 0): " if len(structures) > 1 else ""
            atom = found.atom - int(batch.counts[: k - members.start].sum())
            first, example = f"{where}{_named(structures[k].numbers, atom)} {found.words}", structures[k]
    if not count:
        return
    _told.add(these)
    whole = f"{len(bad)} of {structures[0].n_atoms} atoms are" if len(structures) == 1 else None
    which = whole or f"{count} of {len(structures)} structures have atoms"
    warnings.warn(_sentence(potential, head, first, which, example), OmniCalcWarning, stacklevel=3)


def unlike(potential: Potential, head: str, systems: Systems) -> Unlike | None:
    """The atoms in surroundings that the training data do not have, by their numbers in the whole batch; None where
    there are none, or where those of the data are not known.
    """
    known = potential.known_surroundings.get(head)
    if known is None:
        return None
    arrays = (systems.numbers, systems.positions, systems.counts, systems.cell, systems.pbc)
    return known.unlike(surroundings(known.elements, *(tensor.cpu().numpy() for tensor in arrays)))


def unlike_along(potential: Potential, head: str, systems: Systems) -> Callable[[Tensor, Tensor], Unlike | None] | None:
    """The same along a trajectory that begins at ``systems``, one structure: of positions (N, 3) and cell (3, 3)."""
    if head not in potential.known_surroundings:
        return None

    def look(positions: Tensor, cell: Tensor) -> Unlike | None:
        now = replace(systems, positions=positions.cpu(), cell=cell.cpu()[None])
        found = unlike(potential, head, now)
        if found is None:
            return None
        which = f"{len(found.atoms)} of {systems.n_atoms} atoms are"
        return found._replace(words=_sentence(potential, head, found.words, which, now))

    return look


def _named(numbers: Tensor, atom: int) -> str:
    """An atom for people."""
    return f"{chemical_symbols[int(numbers[atom])]} (atom {atom})"


def _sentence(potential: Potential, head: str, first: str, which: str, example: Systems) -> str:
    """What to tell: of one atom, how many there are, and by which other heads nothing would have been told."""
    others = " or ".join(f"'{name}'" for name in _heads_that_know(potential, example) if name != head)
    return (
        f"{first} in the training data of {potential.name_resolved}, head {head}; {which} in surroundings that this "
        "head has not learned, so results may mean nothing" + (f"; head {others} has" if others else "")
    )


def _heads_that_know(potential: Potential, systems: Systems) -> list[str]:
    """Heads whose data have all surroundings of ``systems``."""
    present = set(systems.numbers.tolist())
    able = [name for name, known in potential.known_surroundings.items() if present <= set(known.elements)]
    return [name for name in able if unlike(potential, name, systems) is None]
