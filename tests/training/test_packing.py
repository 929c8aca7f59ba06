"""Packs within a budget, and the plan of what comes next."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from omnicalc.training.packing import Pack, PackingReport, Size, pack
from omnicalc.training.recipe import Batching
from omnicalc.training.sampler import Sampler
from omnicalc.training.validation import _packed


def molecules(count, rng):
    """Sizes like those of molecules of 6 to 60 atoms, all atoms neighbours, 30 at most."""
    atoms = rng.integers(6, 61, size=count)
    return [Size(int(n), int(n * min(n - 1, 30)), int(min(n - 1, 30))) for n in atoms]


def test_packs_keep_to_the_budget_and_use_it():
    sizes = molecules(400, np.random.default_rng(0)) + [Size(192, 192 * 38, 53)] * 20
    budget = Batching(atoms=400, edges=9000)
    packs, waiting = pack(list(range(len(sizes))), sizes, budget)
    for p in packs:
        assert p.atoms == sum(sizes[k].atoms for k in p.members) <= 400
        assert p.edges == sum(sizes[k].edges for k in p.members) <= 9000
        assert p.width == max(sizes[k].width for k in p.members)
    report = PackingReport()
    report.count(packs, budget)
    assert report.fill >= 0.95
    assert sorted([k for p in packs for k in p.members] + waiting) == list(range(len(sizes)))
    # the wrong variant, packs in the order given, uses clearly less of it
    naive, atoms, edges = [], 500, 9999
    for s in sizes:
        if atoms + s.atoms > 400 or edges + s.edges > 9000:
            naive.append([])
            atoms = edges = 0
        naive[-1].append(s)
        atoms, edges = atoms + s.atoms, edges + s.edges
    used = [max(sum(s.atoms for s in p) / 400, sum(s.edges for s in p) / 9000) for p in naive]
    assert np.mean(used) < 0.95


def test_structures_that_nothing_can_join_do_not_wait_for_ever():
    packs, waiting = pack(list(range(10)), [Size(192, 7000, 50)] * 10, Batching(atoms=500))
    assert [len(p.members) for p in packs] == [2] * 5 and not waiting
    packs, waiting = pack([0], [Size(900, 9000, 50)], Batching(atoms=500))  # too large for any budget: alone
    assert [p.members for p in packs] == [[0]] and not waiting


def test_one_structure_a_pack():
    packs, waiting = pack([3, 1, 2], molecules(3, np.random.default_rng(1)), Batching(structures=1))
    assert sorted(p.members for p in packs) == [[1], [2], [3]] and not waiting


def sampler(budget=Batching(atoms=200), seed=0):  # noqa: B008 (frozen)
    rng = np.random.default_rng(2)
    return Sampler([molecules(50, rng), molecules(20, rng), molecules(7, rng)], budget, seed)


def test_mixing_ratios_and_passes():
    """Structures come in the ratios asked for; each source goes through all of its own before one comes again."""
    plan = sampler()
    packs = plan.next(600, [0.8, 0.1, 0.1])
    while plan.state["taken"]:  # to the end of the window that was planned at once
        packs += plan.next(1, [0.8, 0.1, 0.1])
    drawn = [m for p in packs for m in p.members]
    share = Counter(source for source, _ in drawn)
    assert share[0] / len(drawn) == pytest.approx(0.8, abs=0.02)
    assert share[2] / len(drawn) == pytest.approx(0.1, abs=0.02)
    times = Counter(drawn)
    for source, size in enumerate((50, 20, 7)):
        counts = [times[source, k] for k in range(size)]
        assert max(counts) - min(counts) <= 6 and min(counts) > 10  # one pass under way, a few that wait


def test_a_plan_taken_up_again_goes_on_as_it_would_have():
    whole, first = sampler(), sampler()
    mixtures = [[0.8, 0.1, 0.1]] * 70 + [[0.2, 0.4, 0.4]] * 60  # changes in the middle of a window
    expected = [whole.next(2, m)[1].members for m in mixtures]
    found = [first.next(2, m)[1].members for m in mixtures[:33]]
    second = sampler()
    second.restore(first.state)
    found += [second.next(2, m)[1].members for m in mixtures[33:]]
    assert found == expected
    other = sampler(seed=1)
    assert [other.next(2, m)[1].members for m in mixtures] != expected


def test_packs_looked_at_ahead_are_those_that_come():
    """Across windows, passes and changes of the mixture; the state stays the one before them."""
    plain, ahead = sampler(), sampler()
    for k in range(240):
        mixture, count = ((1, 1, 0), (0, 1, 1))[k % 60 > 40], 1 + k % 3
        state = dict(ahead.state)
        if k % 7:
            peeked = ahead.peek(count, mixture if k % 5 else (1, 0, 0))  # sometimes not what is then asked for
        assert ahead.state == state
        mine, other = ahead.next(count, mixture), plain.next(count, mixture)
        assert [p.members for p in mine] == [p.members for p in other]
        assert ahead.state == plain.state
        if k % 7 and k % 5:
            assert all(a is b for a, b in zip(mine, peeked, strict=True))


def test_nothing_is_lost_when_the_mixture_changes():
    plan = sampler()
    given = [m for p in plan.next(10, [1, 0, 0]) for m in p.members]
    given += [m for p in plan.next(200, [0, 1, 0]) for m in p.members]
    times = Counter(k for source, k in given if source == 0)
    assert max(times.values()) - min(times[k] for k in range(50)) <= 1


def test_packs_of_all_sizes_mixed():
    rng = np.random.default_rng(4)
    sizes = molecules(600, rng)
    mixed, waiting = pack(list(range(600)), sizes, Batching(structures=60, by_width=False))
    by_width, _ = pack(list(range(600)), sizes, Batching(structures=60))
    assert sorted([k for p in mixed for k in p.members] + waiting) == list(range(600))

    def spread(packs):
        """Of the mean size of a pack's structures, over the packs: a tenth of that of sizes where they are mixed."""
        return np.std([p.atoms / len(p.members) for p in packs])

    assert spread(mixed) < 5 < spread(by_width)


@pytest.mark.parametrize("small", [0, 5])
def test_many_structures_are_packed_in_proportional_time(small, monkeypatch):
    """Water boxes, two to a pack, which never fill it: a pack that nothing fits is not looked at again."""
    looks, takes = Counter(), Pack.takes

    def counted(*args):
        looks["takes"] += 1
        return takes(*args)

    monkeypatch.setattr(Pack, "takes", counted)
    entries = [SimpleNamespace(size=Size(192, 7000, 50))] * 4000 + [SimpleNamespace(size=Size(3, 6, 2))] * small
    budget = Batching(atoms=512)
    if not small:
        packs, waiting = pack(entries, [e.size for e in entries], budget)
        assert len(packs) == 2000 and not waiting
        assert looks["takes"] < 20 * len(entries)
        looks.clear()
    packs = _packed(entries, budget)
    assert sum(map(len, packs)) == len(entries) and 2000 <= len(packs) <= 2005
    assert looks["takes"] < 600 * len(entries)
