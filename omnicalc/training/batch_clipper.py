"""Batches cut to a budget of atoms; what is cut off waits in a cache and fills later batches that have room."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omnicalc.errors import InputError

POLICIES = ("random", "largest", "smallest")


@dataclass
class BatchClipper:
    """Call it with the samples of a batch and their sizes; back come samples of at most ``budget`` atoms in all.

    Over budget: samples are gone through in random order, or such that the largest (smallest) are cut first, and kept
    while they fit; the others go into the cache, which holds ``cache_size`` and loses its oldest. Under budget: cached
    samples that fit are added, in random order or largest (smallest) first. Clear the cache after every epoch. A
    single sample over the budget is never used.
    """

    budget: int  # atoms
    cache_size: int = 1000  # samples
    cut: str = "random"
    refill: str = "largest"
    cache: list[tuple[object, int]] = field(default_factory=list)  # sample and its atoms, oldest first

    def __post_init__(self):
        for key in ("cut", "refill"):
            if getattr(self, key) not in POLICIES:
                raise InputError(f"{key} = {getattr(self, key)!r} given; choose one of: {', '.join(POLICIES)}")
        if self.budget < 1 or self.cache_size < 0:
            raise InputError(
                f"budget {self.budget} and cache_size {self.cache_size} given; at least one atom and no fewer than "
                "zero samples are needed"
            )

    def __call__(self, samples: Sequence, sizes: Sequence[int], rng: np.random.Generator | None = None) -> list:
        """The samples to train on; ``rng`` is needed by the random policies."""
        total = sum(sizes)
        pairs = list(zip(samples, map(int, sizes), strict=True))
        if total > self.budget:
            return self._cut(pairs, rng)
        if total < self.budget and self.cache:
            pairs += self._pulled(self.budget - total, rng)
        return [sample for sample, _ in pairs]

    def clear(self) -> None:
        """Forget what waits; at the end of an epoch."""
        self.cache = []

    def _cut(self, pairs: list, rng) -> list:
        # those gone through last are cut: the largest, when the order ascends
        order = _order([size for _, size in pairs], self.cut, rng, descending_for="smallest")
        kept, left, used = [], [], 0
        for k in order:
            fits = used + pairs[k][1] <= self.budget
            (kept if fits else left).append(pairs[k])
            used += pairs[k][1] if fits else 0
        self.cache = (self.cache + left)[-self.cache_size :] if self.cache_size else []
        return [sample for sample, _ in kept]

    def _pulled(self, room: int, rng) -> list:
        chosen, order = [], _order([size for _, size in self.cache], self.refill, rng, descending_for="largest")
        for k in order:
            if self.cache[k][1] <= room:
                chosen.append(k)
                room -= self.cache[k][1]
        pulled = [self.cache[k] for k in chosen]
        self.cache = [pair for k, pair in enumerate(self.cache) if k not in set(chosen)]
        return pulled


def _order(sizes: list[int], policy: str, rng, descending_for: str) -> list[int]:
    """Indices by size; equal sizes stay in their order."""
    if policy == "random":
        if rng is None:
            raise InputError("a random policy of the batch clipper needs rng, as in numpy.random.default_rng(0)")
        return rng.permutation(len(sizes)).tolist()
    return sorted(range(len(sizes)), key=sizes.__getitem__, reverse=policy == descending_for)
