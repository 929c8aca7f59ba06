"""Which structures come next: mixing ratios, one shuffled pass after another through each source, packs.

All of it follows from the seed and a handful of numbers, so that a resumed run, and every process of a distributed
one, plans the same packs without exchanging anything.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from omnicalc.training.packing import Pack, Size, pack
from omnicalc.training.recipe import Batching

_WINDOW = 48  # packs planned at a time
_SMALLEST_WINDOW = 16  # structures


class Sampler:
    """Packs of (source, index) members without end.

    ``state`` is what :meth:`restore` needs: plain numbers and lists.
    """

    def __init__(self, sizes: Sequence[Sequence[Size]], budget: Batching, seed: int):
        """``sizes[source][index]`` of the training structures."""
        self.sizes, self.budget, self.seed = sizes, budget, seed
        self.state = {
            "window": 0,  # number of the window under way
            "taken": 0,  # of its packs
            "drawn": [0] * len(sizes),  # structures of each source before this window
            "waiting": [],  # members that wait from the window before
            "mixture": None,  # of this window
        }
        self._packs: list[Pack] | None = None
        self._after: dict | None = None
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self._peeked: tuple | None = None  # what was asked, the packs, and all that is so after them

    def restore(self, state: dict) -> None:
        self.state, self._packs, self._peeked = state, None, None

    def peek(self, count: int, mixture: Sequence[float]) -> list[Pack]:
        """What the same call of :meth:`next` is going to give, those very objects; ``state`` stays as it is."""
        before = dict(self.state), self._packs, None if self._after is None else dict(self._after)
        found = self.next(count, mixture)
        self._peeked = (count, list(mixture)), found, (self.state, self._packs, self._after)
        self.state, self._packs, self._after = before
        return found

    def next(self, count: int, mixture: Sequence[float]) -> list[Pack]:
        """The next ``count`` packs, of structures drawn from the sources with probabilities ``mixture``."""
        peeked, self._peeked = self._peeked, None
        if peeked is not None and peeked[0] == (count, list(mixture)):
            self.state, self._packs, self._after = peeked[2]
            return peeked[1]
        found: list[Pack] = []
        while len(found) < count:
            if self.state["mixture"] is not None and self.state["mixture"] != list(mixture):
                self._change_mixture()
            if self._packs is None:
                self.state["mixture"] = list(mixture)
                self._packs, self._after = self._plan()
            first = self.state["taken"]
            chosen = self._packs[first : first + count - len(found)]
            self.state["taken"] += len(chosen)
            found += chosen
            if self.state["taken"] >= len(self._packs):
                self.state, self._packs = self._after, None
        return found

    def _change_mixture(self) -> None:
        """Leave the window under way; what it drew and did not give waits for the next one."""
        if self._packs is None:
            self._packs, self._after = self._plan()
        left = [m for p in self._packs[self.state["taken"] :] for m in p.members]
        self.state = {**self._after, "waiting": left + self._after["waiting"], "mixture": None}
        self._packs = None

    def _plan(self) -> tuple[list[Pack], dict]:
        """The packs of the present window in the order they come, and the state after it."""
        state = self.state
        rng = _generator(self.seed, "window", state["window"])
        mixture = np.asarray(state["mixture"], dtype=float)
        drawn, members = list(state["drawn"]), [tuple(m) for m in state["waiting"]]
        wanted = max(_SMALLEST_WINDOW, self._structures_per_window(mixture / mixture.sum()))
        while True:
            for source in rng.choice(len(mixture), size=wanted, p=mixture / mixture.sum()).tolist():
                members.append((source, self._index(source, drawn[source])))
                drawn[source] += 1
            packs, waiting = pack(members, [self.sizes[s][k] for s, k in members], self.budget, len(state["waiting"]))
            if packs:
                break
        rng.shuffle(packs)
        after = {
            "window": state["window"] + 1,
            "taken": 0,
            "drawn": drawn,
            "waiting": [list(m) for m in waiting],
            "mixture": None,
        }
        return packs, after

    def _structures_per_window(self, mixture: np.ndarray) -> int:
        budget, per_pack = self.budget, []
        for attribute, limit in (("atoms", budget.atoms), ("edges", budget.edges)):
            if limit is not None:
                means = [np.mean([getattr(s, attribute) for s in sizes]) if sizes else 0 for sizes in self.sizes]
                per_pack.append(limit / max(1.0, float(mixture @ np.asarray(means))))
        if budget.structures is not None:
            per_pack.append(budget.structures)
        return int(_WINDOW * max(1.0, min(per_pack)))

    def _index(self, source: int, n: int) -> int:
        """The ``n``-th structure drawn from a source: a new order in every pass through it."""
        epoch, place = divmod(n, len(self.sizes[source]))
        held = self._orders.get(source)
        if held is None or held[0] != epoch:
            order = _generator(self.seed, "order", source, epoch).permutation(len(self.sizes[source]))
            self._orders[source] = held = (epoch, order)
        return int(held[1][place])


def _generator(*words) -> np.random.Generator:
    digest = hashlib.sha256(repr(words).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def seed_of(*words) -> int:
    """A seed (63 bits) from a run's seed and whatever names the place it is for."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "little") >> 1
