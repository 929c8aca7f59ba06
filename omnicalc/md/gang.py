"""Several runs in lock-step: each in a thread of its own, their force calls computed together.

Every member steps as a run alone does, with its own state, generator, files and guards, and waits in its force call
until all others are in theirs; then the thread that serves computes all of them as one batch. So nothing of an
integrator, a barostat or a guard is written twice, and a member repeats the run that it would have been alone: with the
native kernel bit for bit, else but for rounding.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from omnicalc.errors import RunError
from omnicalc.joint_list import JointList
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import BoundPotential
from omnicalc.signals import StopWish
from omnicalc.systems import cat


class ReleasedError(RunError):
    """A member cannot go on because of what happened to another."""


class Member:
    """Stands where a bound potential does; ``own`` is the one that its run would have alone."""

    def __init__(self, gang: Gang, number: int, own: Callable):
        self._gang, self._number, self.own = gang, number, own

    def __call__(self, positions: Tensor, *, stress: bool = False):
        return self._gang.request(self._number, positions, stress)

    def __getattr__(self, name: str):
        if name in ("own", "_gang"):  # not there yet, as while it is copied
            raise AttributeError(name)
        return getattr(self.own, name)

    @property
    def systems(self):
        return self.own.systems

    @systems.setter
    def systems(self, systems):
        self.own.systems = systems


class Gang:
    """``count`` members with force calls like those of ``bound``."""

    def __init__(self, bound: Callable, count: int, wish: StopWish):
        """``wish``: to stop; members see it all at the same step."""
        self.members = [Member(self, k, own_copy(bound)) for k in range(count)]
        self.wish = _SharedWish()
        self._outer = wish
        self._joint: tuple[list[int], BoundPotential] | None = None
        self._turn = threading.Condition()
        self._alive = set(range(count))
        self._requests: dict[int, tuple[Tensor, bool]] = {}
        self._answers: dict[int, object] = {}
        self._parked: set[int] = set()
        self._started = False
        self._broken: BaseException | None = None

    # called by members

    def request(self, number: int, positions: Tensor, stress: bool):
        """What ``bound`` says of these positions, once all members have asked."""
        with self._turn:
            self._requests[number] = positions, stress
            self._turn.notify_all()
            self._turn.wait_for(lambda: number in self._answers or self._broken is not None)
            if number not in self._answers:
                raise ReleasedError("the other replicas have stopped") from self._broken
            answer = self._answers.pop(number)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def park(self, number: int) -> None:
        """Wait until all members are ready to write; raises :class:`ReleasedError` when one never will be."""
        with self._turn:
            self._parked.add(number)
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._started or self._broken is not None)
            if not self._started:
                raise ReleasedError("another replica cannot start") from self._broken

    def leave(self, number: int, error: BaseException | None = None) -> None:
        """A member has ended, by ``error`` or at its last step. Before the start, no other will start either."""
        with self._turn:
            self._alive.discard(number)
            self._parked.discard(number)
            if error is not None and not self._started:
                self._broken = self._broken or error
            self._turn.notify_all()

    # called by the thread that serves

    def serve(self, start: Callable[[], None]) -> None:
        """Compute for the members until the last has left; ``start`` is called when all are parked."""
        try:
            with self._turn:
                while self._alive:
                    self._turn.wait_for(self._something_to_do)
                    if self._requests and self._waiting_for_forces():
                        self._compute()
                    elif self._alive and not self._started and self._parked == self._alive and not self._broken:
                        start()
                        self._started = True
                    self._turn.notify_all()
        except BaseException as error:  # a second Ctrl-C, a full disk
            self.break_up(error)
            raise

    def break_up(self, error: BaseException) -> None:
        """Nothing will be computed any more: no member may wait for ever."""
        with self._turn:
            self._broken = self._broken or error
            self._turn.notify_all()

    def _something_to_do(self) -> bool:
        parked = not self._started and self._parked == self._alive and self._broken is None
        return not self._alive or parked or self._waiting_for_forces()

    def _waiting_for_forces(self) -> bool:
        waiting = set(self._requests)
        return bool(waiting) and waiting | (set() if self._started else self._parked) == self._alive

    def _compute(self) -> None:
        self.wish.signal = self._outer.signal
        numbers = sorted(self._requests)
        asked = [self._requests[k] for k in numbers]
        self._requests = {}
        try:
            answers = self._together(numbers, asked)
        except Exception as error:  # every member says so in its own folder
            answers = [error] * len(numbers)
        self._answers |= dict(zip(numbers, answers, strict=True))

    def _together(self, numbers: list[int], asked: Sequence[tuple[Tensor, bool]]) -> list:
        own = [self.members[k].own for k in numbers]
        if not all(isinstance(each, BoundPotential) for each in own):
            return [each(x, stress=True) if stress else each(x) for each, (x, stress) in zip(own, asked, strict=True)]
        if self._joint is None or self._joint[0] != numbers:
            lists = JointList([each.neighbor_list for each in own])
            systems = cat([each.systems for each in own])
            self._joint = numbers, BoundPotential(own[0].potential, systems, own[0].head, lists)
        joint = self._joint[1]
        cells = torch.cat([each.systems.cell for each in own])
        if not torch.equal(cells, joint.systems.cell):
            joint.systems = replace(joint.systems, cell=cells)
        found = joint(torch.cat([x for x, _ in asked]), stress=any(stress for _, stress in asked))
        counts = joint.systems.counts.tolist()
        spread = None if found.forces_std is None else found.forces_std.split(counts)
        return [
            SimpleNamespace(
                energy=found.energy[k : k + 1],
                forces=forces,
                stress=found.stress[k : k + 1] if asked[k][1] else None,
                forces_std=None if spread is None else spread[k],
            )
            for k, forces in enumerate(found.forces.split(counts))
        ]


class _SharedWish:
    """A wish to stop that all members see at the same step."""

    signal: int | None = None

    def __enter__(self) -> _SharedWish:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def renew_thread_pool() -> None:
    """Let torch make its thread pool now, before several threads ask for one.

    After a fork torch replaces the pool when it is first asked for, unlocked: of threads that ask at the same time some
    find none and fail ("Invalid thread pool!").
    """
    torch.set_num_threads(torch.get_num_threads())


def own_copy(bound: Callable) -> Callable:
    """A bound potential like ``bound`` with a neighbour list of its own."""
    if not isinstance(bound, BoundPotential):
        return copy.deepcopy(bound)
    skin = bound.neighbor_list.skin
    return BoundPotential(bound.potential, bound.systems, bound.head, NeighborList(bound.potential.cutoff, skin))
