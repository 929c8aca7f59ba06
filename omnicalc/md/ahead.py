"""Steps made before the host looks at any of them, so that on a GPU nothing waits between one step and the next.

What has to be known about every step (whether the neighbour list still served, what the guards ask) is computed beside
it, and read once for all of them. Those that the list served are, to the last bit, what single steps would have been:
they count. The others are thrown away, and the next one is made by itself, with a search for neighbours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from omnicalc.md.guards import Seen
from omnicalc.neighbor_list import NeighborList

if TYPE_CHECKING:
    from omnicalc.md.dynamics import Dynamics
    from omnicalc.md.guards import Guards
    from omnicalc.md.state import State

MOST = 32  # steps at a time: a look costs some 20 µs, and a signal is not to wait for long
_CAUTION = 0.8  # of the steps that the list should still serve
_LEAST = 1e-9  # Å per step


class Ahead:
    """Steps of ``dynamics``, several at a time."""

    def __init__(self, dynamics: Dynamics, guards: Guards):
        self._dynamics, self._guards = dynamics, guards
        self._list: NeighborList = dynamics.job.bound.neighbor_list
        self._age = 0  # steps since the list was searched, as far as is known here
        self._moved = 0.0  # Å, of the atom that has moved most since then
        self._pace = max(self._list.reach / 4, _LEAST)  # Å per step, of that atom; a guess, to begin with

    @staticmethod
    def possible(dynamics: Dynamics) -> bool:
        """Whether a step of this run needs nothing of the host, and whether there is anything to gain."""
        bound = dynamics.job.bound
        listed = isinstance(getattr(bound, "neighbor_list", None), NeighborList)
        return listed and getattr(bound, "asynchronous", False) and dynamics.asynchronous

    def steps(self, state: State, most: int) -> list[tuple[State, Seen | None]]:
        """At least one and at most ``most`` states that follow ``state``, with what guards ask where that is known."""
        expected = _CAUTION * (self._list.reach - self._moved) / self._pace
        n = min(most, MOST, int(expected))
        return (self._trusting(state, n) if n >= 1 else []) or [(self._single(state), None)]

    def _single(self, state: State) -> State:
        """The next state, whose neighbours are searched if need be."""
        searches = self._list.rebuilds
        state = self._dynamics.step(state)
        if self._list.rebuilds > searches:
            self._age, self._moved = 0, 0.0
        else:
            self._age, self._moved = self._age + 1, self._moved + self._pace
        return state

    def _trusting(self, state: State, n: int) -> list[tuple[State, Seen]]:
        """``n`` steps by the list as it is, less those that it did not serve."""
        states, looks, before = [], [], state
        with self._list.trusted() as moved:
            for _ in range(n):
                states.append(self._dynamics.step(before))
                looks.append(self._guards.look(states[-1], before, lambda: states[-1].positions))
                before = states[-1]
        found = torch.cat([torch.stack(moved)[:, None], torch.stack(looks)], 1).tolist()
        served = []
        for state, (square, *seen) in zip(states, found, strict=True):
            if not square <= self._list.reach**2:  # so for NaN, which the single step then meets with its own words
                break
            served.append((state, Seen(*seen)))
            self._age, self._moved = self._age + 1, math.sqrt(square)
        if served:
            self._pace = max(self._moved / self._age, _LEAST)
        else:
            self._moved = self._list.reach
        return served
