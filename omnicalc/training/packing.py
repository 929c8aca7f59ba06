"""Packs of structures within a budget of atoms and of edges: greedy, and measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnicalc.training.recipe import Batching


@dataclass(frozen=True)
class Size:
    """What one structure takes of a budget."""

    atoms: int
    edges: int  # directed pairs within the cutoff
    width: int  # neighbours of its most crowded atom: rows of a batch are as long as the widest of them


class Pack:
    """Structures of one forward pass."""

    def __init__(self):
        self.members: list = []
        self.atoms = self.edges = self.width = 0

    def add(self, member, size: Size) -> None:
        self.members.append(member)
        self.atoms += size.atoms
        self.edges += size.edges
        self.width = max(self.width, size.width)

    def takes(self, size: Size, budget: Batching) -> bool:
        """Whether one more fits; a structure too large for any pack gets one of its own."""
        if not self.members:
            return True
        if budget.structures is not None and len(self.members) >= budget.structures:
            return False
        return self.fill_with(size, budget) <= 1

    def fill_with(self, size: Size, budget: Batching) -> float:
        return _fill(self.atoms + size.atoms, self.edges + size.edges, len(self.members) + 1, budget)

    def fill(self, budget: Batching) -> float:
        """Used part of the budget that binds: atoms, edges or structures, whichever is nearer its limit."""
        return _fill(self.atoms, self.edges, len(self.members), budget)

    def is_full(self, budget: Batching) -> bool:
        if budget.structures is not None and len(self.members) >= budget.structures:
            return True
        return self.fill(budget) >= FULL


FULL = 0.95  # of a budget: packs emptier than this wait for further structures
_WAIT = 4  # so many packs; were it all, holes that nothing fills would wait for ever


def _fill(atoms: int, edges: int, structures: int, budget: Batching) -> float:
    parts = [
        used / limit
        for used, limit in ((atoms, budget.atoms), (edges, budget.edges), (structures, budget.structures))
        if limit is not None
    ]
    return max(parts)


def pack(members: Sequence, sizes: Sequence[Size], budget: Batching, waited: int = 0) -> tuple[list[Pack], list]:
    """Greedy packs, and the members that did not fill one and should wait for the next.

    Widest first, each into the pack it fills best: rows of neighbours are padded to the widest atom of a pack, so that
    a molecule costs what a crystal costs in its company. Holes that wide structures leave are filled by the next
    narrower ones. The first ``waited`` members have waited already and go before all others, so that none waits twice.
    With ``by_width`` off they come as they were drawn: steps of one large pack then see all kinds of structures.
    """
    order = range(len(members))
    if budget.by_width:
        order = sorted(order, key=lambda k: (k >= waited, -sizes[k].width, -sizes[k].atoms, k))
    smallest = Size(min(s.atoms for s in sizes), min(s.edges for s in sizes), 0)
    closed: list[Pack] = []
    open_: dict[int, Pack] = {}  # by number, in the order of their first members
    with_room: dict[int, Pack] = {}  # those of them that could take more, of which many structures leave few
    for k in order:
        fitting = [p for p in with_room.values() if p.takes(sizes[k], budget)]
        chosen = max(fitting, key=lambda p: p.fill_with(sizes[k], budget), default=None)
        if chosen is None:
            chosen = Pack()
            open_[id(chosen)] = with_room[id(chosen)] = chosen
        chosen.add(members[k], sizes[k])
        if chosen.is_full(budget):
            closed.append(chosen)
            del open_[id(chosen)]
        if chosen.is_full(budget) or not chosen.takes(smallest, budget):
            del with_room[id(chosen)]
    final = [p for key, p in open_.items() if key not in with_room]  # as full as these structures can make it
    hopeful = sorted(with_room.values(), key=lambda p: p.fill(budget))
    waiting = [m for p in hopeful[:_WAIT] for m in p.members]
    return closed + final + hopeful[_WAIT:], waiting


def share(packs: Sequence[Pack], size_of: Callable[..., Size], rank: int, count: int) -> dict[int, Pack]:
    """What process ``rank`` of ``count`` takes of a step, by numbers that no two processes share: whole packs where
    they come out even, else part of each, so that all have about as many edges. Nothing may be left for some.
    """
    if len(packs) % count == 0:
        return {k: packs[k] for k in range(rank, len(packs), count)}
    members = [(size_of(member), k, member) for k, p in enumerate(packs) for member in p.members]
    loads, mine = [0] * count, {}
    for size, k, member in sorted(members, key=lambda m: -m[0].edges):
        taker = loads.index(min(loads))
        loads[taker] += size.edges + size.atoms
        if taker == rank:
            mine.setdefault(k * count + rank, Pack()).add(member, size)
    return mine


class PackingReport:
    """Running means over the packs that were trained on."""

    def __init__(self):
        self.packs = self.structures = self.atoms = self.edges = self.slots = 0
        self.fill_sum, self.step_loads = 0.0, []

    def count(self, packs: Sequence[Pack], budget: Batching) -> None:
        """One step's packs."""
        for p in packs:
            self.packs += 1
            self.structures += len(p.members)
            self.atoms += p.atoms
            self.edges += p.edges
            self.slots += p.atoms * p.width
            self.fill_sum += min(1.0, p.fill(budget))
        loads = [p.edges for p in packs]
        self.step_loads.append(max(loads) / max(1e-9, sum(loads) / len(loads)) - 1 if len(loads) > 1 else 0.0)

    @property
    def fill(self) -> float:
        """Mean part of the budget that was used, of whichever limit binds."""
        return self.fill_sum / max(1, self.packs)

    def __str__(self) -> str:
        n = max(1, self.packs)
        imbalance = sum(self.step_loads) / max(1, len(self.step_loads))
        return (
            f"{self.structures / n:.1f} structures, {self.atoms / n:.0f} atoms, {self.edges / n:.0f} edges per pack; "
            f"{100 * self.fill:.1f} % of the budget used, {100 * self.edges / max(1, self.slots):.0f} % of the "
            f"neighbour slots, imbalance between packs of a step {100 * imbalance:.1f} %"
        )
