"""Neighbour lists equal a brute-force search for any cell, and stay equal to it however they are kept."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import Neighbors, dense_rows, neighbors
from omnicalc.pair_search import translation
from omnicalc.systems import Systems, cat

ALL_PBC = list(itertools.product([False, True], repeat=3))


def build(positions, cell=None, pbc=False) -> Systems:
    """One structure of helium atoms, without the checks of ``Systems.from_atoms``."""
    positions = torch.as_tensor(np.asarray(positions, dtype=float)).reshape(-1, 3)
    cell = torch.zeros(3, 3) if cell is None else torch.as_tensor(np.asarray(cell, dtype=float))
    return Systems(
        positions=positions,
        numbers=torch.full((len(positions),), 2),
        cell=cell.double().reshape(1, 3, 3),
        pbc=torch.as_tensor(np.broadcast_to(pbc, 3).copy()).reshape(1, 3),
        charge=torch.zeros(1, dtype=torch.int64),
        spin=torch.ones(1, dtype=torch.int64),
        system=torch.zeros(len(positions), dtype=torch.int64),
    )


def neighbors_reference(systems: Systems, cutoff: float) -> Neighbors:
    """The same list by brute force over images: slow, simple, independent of the search library.

    Along periodic axis k with dual vector b_k (a_m · b_k = 1 if m = k else 0, over the periodic rows a_m of
    the cell), the image of j nearest to i has a shift near f_k = (r_i - r_j) · b_k, and |d| < cutoff implies
    |n_k - f_k| < cutoff |b_k|. So every pair is among the shifts round(f) + m with
    |m_k| <= cutoff |b_k| + 1/2, for any cell however thin or skewed.
    """
    found = []
    for s in range(systems.n_systems):
        atoms = (systems.system == s).nonzero()[:, 0]
        positions, cell = systems.positions[atoms].detach(), systems.cell[s].detach()
        found += _brute_force(positions, cell, systems.pbc[s].nonzero()[:, 0], cutoff, atoms)
    found.sort()
    i = torch.tensor([pair[0] for pair in found], dtype=torch.int64, device=systems.device)
    j = torch.tensor([pair[1] for pair in found], dtype=torch.int64, device=systems.device)
    shift = torch.tensor([pair[2:] for pair in found], dtype=torch.float64, device=systems.device)
    return dense_rows(i, j, shift.reshape(-1, 3), systems.n_atoms, cutoff)


def _brute_force(positions: Tensor, cell: Tensor, periodic: Tensor, cutoff: float, atoms: Tensor) -> list:
    """Pairs (i, j, n_a, n_b, n_c) of one structure whose A atoms are numbered ``atoms`` in the batch."""
    lattice = cell[periodic]  # (P, 3)
    dual = torch.linalg.pinv(lattice).T if len(periodic) else lattice
    reach = [math.floor(cutoff * float(b.norm()) + 0.5) for b in dual]
    images = list(itertools.product(*(range(-r, r + 1) for r in reach)))
    images = torch.tensor(images, dtype=torch.float64, device=cell.device).reshape(len(images), len(periodic))
    found = []
    for a in range(len(atoms)):
        n = cell.new_zeros(len(atoms), len(images), 3)
        n[..., periodic] = ((positions[a] - positions) @ dual.T).round()[:, None] + images
        d = (positions[a] - positions)[:, None] - translation(n.reshape(-1, 3), cell[None]).view_as(n)
        near = d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2 < cutoff * cutoff
        near[a] &= n[a].any(dim=1)
        b, m = near.nonzero(as_tuple=True)
        found += [(int(atoms[a]), j, *n) for j, n in zip(atoms[b].tolist(), n[b, m].tolist(), strict=True)]
    return found


def same(a: Neighbors, b: Neighbors) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("index", "shift", "mask"))


def check(systems: Systems, cutoff: float) -> Neighbors:
    """Search, kept list and brute force agree on every pair, in order; returns the list."""
    expected = neighbors_reference(systems, cutoff)
    found = neighbors(systems, cutoff)
    assert same(found, expected)
    for skin in (0.0, 0.7):
        assert same(NeighborList(cutoff, skin).update(systems), expected)
    i, j, shift = found.pairs()
    assert not ((i == j) & (shift == 0).all(1)).any()
    d = found.vectors(systems.positions, systems.cell, systems.system).norm(dim=-1)
    assert (d[found.mask] < cutoff + 1e-9).all() and (d[~found.mask] > cutoff).all()
    return found


CELLS = {
    "cubic": np.eye(3) * 6.0,
    "triclinic": np.array([[6.0, 0.3, -0.2], [2.5, 5.5, 0.4], [-2.0, 1.8, 5.0]]),
    "left-handed": np.array([[0.0, 6.0, 0.3], [6.0, 0.0, 0.2], [0.1, 0.4, 6.5]]),
    "thin": np.diag([1.5, 7.0, 8.0]),
    "smaller than the cutoff": np.array([[2.1, 0.2, 0.0], [0.5, 2.4, 0.1], [0.3, -0.4, 2.2]]),
    "very skewed": np.array([[3.0, 0.0, 0.0], [20.0, 3.0, 0.0], [-14.0, 9.0, 3.5]]),
    "large": np.eye(3) * 40.0,
}


class TestAgainstBruteForce:
    @pytest.mark.parametrize("pbc", ALL_PBC)
    @pytest.mark.parametrize("name", CELLS)
    def test_any_cell(self, name, pbc):
        rng = np.random.default_rng(3)
        positions = rng.uniform(-0.3, 1.3, (6, 3)) @ CELLS[name]
        check(build(positions, CELLS[name], pbc), 5.0)

    @pytest.mark.parametrize("seed", range(12))
    def test_random_cells(self, seed):
        rng = np.random.default_rng(seed)
        cell = rng.normal(size=(3, 3)) * 2.0 + np.diag(rng.choice([-5.0, 5.0], 3))
        pbc = rng.random(3) < 0.6
        cell[~pbc] *= rng.choice([0.0, 1.0])  # axes that are not periodic may have no vector
        check(build(rng.normal(size=(8, 3)) * 4.0, cell, pbc), float(rng.uniform(1.0, 6.0)))

    def test_vector_of_an_axis_that_is_not_periodic_does_not_matter(self):
        positions = np.random.default_rng(0).uniform(0, 4, (5, 3))
        cell = np.diag([4.0, 5.0, 6.0])
        odd = cell.copy()
        odd[2] = odd[0]  # parallel to a periodic axis
        pbc = [True, True, False]
        assert same(check(build(positions, cell, pbc), 4.0), check(build(positions, odd, pbc), 4.0))

    def test_one_atom_sees_its_images(self):
        assert check(build([[0.3, 0.2, 0.1]], np.eye(3), True), 1.1).index.tolist() == [[0] * 6]
        assert check(build([[0.3, 0.2, 0.1]], np.eye(3), [True, False, False]), 1.1).n_slots == 2

    def test_unwrapped_coordinates(self):
        rng = np.random.default_rng(1)
        cell = CELLS["triclinic"]
        wrapped = rng.uniform(0, 1, (7, 3)) @ cell
        away = rng.integers(-50, 50, (7, 3))
        near = check(build(wrapped, cell, True), 5.0)
        far = check(build(wrapped + away @ cell, cell, True), 5.0)
        assert near.mask.sum() == far.mask.sum()
        # n counts from the given coordinates
        i, j, shift = far.pairs()
        i0, j0, shift0 = near.pairs()
        back = shift - torch.from_numpy(away).double()[i] + torch.from_numpy(away).double()[j]
        key = sorted(zip(i.tolist(), j.tolist(), back.tolist(), strict=True))
        assert key == sorted(zip(i0.tolist(), j0.tolist(), shift0.tolist(), strict=True))

    def test_atoms_very_far_apart(self):
        far = 1e7
        check(build([[0, 0, 0], [far, 0, 0], [far + 1, 0, 0], [1, 0, 0]]), 3.0)
        column = [[0, 0, 0], [0, 0, far], [0, 0, far + 1]]
        check(build(column, np.diag([4.0, 4, 0]), [True, True, False]), 3.0)

    def test_needle_and_plate(self):
        positions = np.random.default_rng(2).uniform(0, 2, (5, 3))
        check(build(positions, np.diag([2.0, 2.0, 4e5]), True), 1.4)
        check(build(positions, np.diag([2.0, 700.0, 700.0]), True), 1.4)

    def test_nothing_within_reach(self):
        found = check(build([[0, 0, 0], [9, 0, 0]]), 5.0)
        assert found.index.shape == (2, 0) and found.shift.shape == (2, 0, 3)
        assert all(len(part) == 0 for part in found.pairs())
        assert check(build([[0, 0, 0]]), 5.0).n_slots == 0
        systems = build([[0, 0, 0], [9, 0, 0]])
        assert found.vectors(systems.positions, systems.cell, systems.system).shape == (2, 0, 3)

    def test_no_atoms(self):
        assert check(build(np.zeros((0, 3)), np.eye(3) * 5, True), 5.0).index.shape == (0, 0)

    def test_a_pair_at_the_cutoff_is_out(self):
        assert check(build([[0, 0, 0], [3, 0, 0]]), 3.0).n_slots == 0
        assert check(build([[0, 0, 0], [3, 0, 0]]), np.nextafter(3.0, 4.0)).n_slots == 1

    def test_batch_of_mixed_structures(self):
        rng = np.random.default_rng(5)
        parts = [
            build(rng.uniform(0, 6, (5, 3)), CELLS["triclinic"], True),
            build([[0, 0, 0]]),
            build(rng.uniform(0, 3, (4, 3))),
            build(rng.uniform(0, 6, (6, 3)), CELLS["thin"], [True, False, True]),
            build(rng.uniform(0, 2, (2, 3)), CELLS["smaller than the cutoff"], True),
        ]
        whole, first = check(cat(parts), 4.0), 0
        for part in parts:
            alone, rows = check(part, 4.0), slice(first, first + part.n_atoms)
            index = whole.index[rows, : alone.n_slots]
            assert torch.equal(index[alone.mask], alone.index[alone.mask] + first)
            assert torch.equal(whole.mask[rows].sum(1), alone.mask.sum(1))
            first += part.n_atoms

    def test_the_check_can_fail(self, monkeypatch):
        """Nearest images only: wrong in cells smaller than twice the cutoff, and seen to be wrong."""

        def nearest_images(systems, cutoff):
            full = neighbors_reference(systems, cutoff)
            i, j, shift = full.pairs()
            d = full.vectors(systems.positions, systems.cell, systems.system).norm(dim=-1)[full.mask]
            keep = [(i == i[k]).logical_and(j == j[k]).logical_and(d < d[k]).sum() == 0 for k in range(len(i))]
            mask = full.mask.clone()
            mask[full.mask] = torch.tensor(keep)
            return Neighbors(full.index, full.shift, mask, cutoff)

        systems = build([[0, 0, 0], [1, 1, 1]], np.eye(3) * 4.0, True)
        check(systems, 1.8)
        monkeypatch.setitem(globals(), "neighbors", nearest_images)
        check(systems, 1.8)  # a cell more than twice the cutoff hides the mistake
        with pytest.raises(AssertionError):
            check(systems, 4.1)


def small_strain(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 3, dtype=torch.float64, generator=generator) * 0.01


class TestVectors:
    def systems(self) -> Systems:
        rng = np.random.default_rng(7)
        a = build(rng.uniform(0, 3, (3, 3)), np.eye(3) * 3.0 + rng.normal(size=(3, 3)) * 0.1, True)
        return cat([a, build(rng.uniform(0, 3, (4, 3)))])

    @pytest.mark.parametrize("count", [1, 2])
    def test_derivatives(self, count):
        systems = self.systems()
        systems = systems if count == 2 else build(systems.positions[:3], systems.cell[0], True)
        found = neighbors(systems, 3.0)
        strain = small_strain(count, seed=0)
        arguments = [t.clone().requires_grad_() for t in (systems.positions, systems.cell, strain)]
        assert torch.autograd.gradcheck(lambda x, c, e: found.vectors(x, c, systems.system, e), arguments)

    def test_strain_acts_like_a_strained_structure(self):
        systems = self.systems()
        found = neighbors(systems, 3.0)
        strain = small_strain(2, seed=1)
        matrix = torch.eye(3) + strain
        positions = (systems.positions[:, None] @ matrix[systems.system])[:, 0]
        moved = found.vectors(positions, systems.cell @ matrix, systems.system)
        strained = found.vectors(systems.positions, systems.cell, systems.system, strain)
        assert torch.allclose(moved, strained, atol=1e-12, rtol=0)

    def test_padding_is_constant(self):
        systems = self.systems()
        found = neighbors(systems, 3.0)
        assert not found.mask.all()
        positions, cell = systems.positions.requires_grad_(), systems.cell.requires_grad_()
        strain = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
        padding = found.vectors(positions, cell, systems.system, strain)[~found.mask]
        assert torch.allclose(padding, torch.tensor([6.0, 0, 0], dtype=torch.float64), atol=1e-12)
        for gradient in torch.autograd.grad(padding.square().sum(), (positions, cell, strain)):
            assert gradient.abs().max() < 1e-12

    def test_kept_offsets_follow_a_cell_that_changes(self):
        systems = build([[0, 0, 0], [1, 1, 1]], np.eye(3) * 4.0, True)
        found = NeighborList(3.5).update(systems)
        other = systems.cell * 1.1
        plain = Neighbors(found.index, found.shift, found.mask, found.cutoff)

        def vectors(which, cell):
            return which.vectors(systems.positions, cell, systems.system)

        assert torch.equal(vectors(found, systems.cell), vectors(plain, systems.cell))
        assert torch.equal(vectors(found, other), vectors(plain, other))
        systems.cell.mul_(1.2)  # written to in place: what was kept no longer holds
        assert torch.equal(vectors(found, systems.cell), vectors(plain, systems.cell))


def walk(seed: int, n_steps: int = 60):
    """Positions of a random walk in a small triclinic cell, every second pair of frames with a large jump."""
    rng = np.random.default_rng(seed)
    systems = build(rng.uniform(0, 6, (20, 3)), CELLS["triclinic"], True)
    positions = systems.positions.clone()
    for k in range(n_steps):
        positions = positions + torch.from_numpy(rng.normal(size=(20, 3))) * (1.0 if k % 20 == 19 else 0.03)
        yield systems.with_positions(positions)


def follows(kept: NeighborList, seed: int) -> bool:
    return all(same(kept.update(systems), neighbors(systems, kept.cutoff)) for systems in walk(seed))


class NeverRebuilds(NeighborList):
    def update(self, systems):
        if self._built is None:
            return super().update(systems)
        return self._built.dense.within(systems)


class TestKeptList:
    @pytest.mark.parametrize("skin", [0.0, 0.4, 1.0])
    def test_equals_a_fresh_search_along_a_walk(self, skin):
        kept = NeighborList(4.0, skin)
        assert follows(kept, 0)
        assert kept.rebuilds == 60 if skin == 0.0 else 3 < kept.rebuilds < 50

    def test_the_check_can_fail(self):
        assert not follows(NeverRebuilds(4.0, 0.4), 0)

    def test_rebuilds_only_when_needed(self):
        systems = build([[0, 0, 0], [3, 0, 0]], np.eye(3) * 9, True)
        kept = NeighborList(4.0, 0.5)
        assert kept.reference is None
        kept.update(systems)
        kept.update(systems.with_positions(systems.positions + 0.14))  # |0.14 * (1, 1, 1)| = 0.242 < 0.25
        assert kept.rebuilds == 1 and torch.equal(kept.reference, systems.positions)
        kept.update(systems.with_positions(systems.positions + 0.15))
        assert kept.rebuilds == 2 and torch.equal(kept.reference, systems.positions + 0.15)

    @pytest.mark.parametrize("what", ["cell", "pbc", "numbers", "system", "fewer atoms"])
    def test_notices_other_changes(self, what):
        systems = cat([build([[0, 0, 0], [3, 0, 0]], np.eye(3) * 5, True) for _ in range(2)])
        kept = NeighborList(4.0)
        kept.update(systems)
        if what == "fewer atoms":
            systems = build([[0, 0, 0], [3, 0, 0], [0, 0, 1]], np.eye(3) * 5, True)
        elif what == "cell":
            systems.cell.mul_(1.01)  # in place
        elif what == "pbc":
            systems.pbc[0, 1] = False
        elif what == "numbers":
            systems.numbers[0] = 3
        else:
            systems.system[1] = 1
        assert same(kept.update(systems), neighbors(systems, 4.0))
        assert kept.rebuilds == 2

    def test_restart_repeats_the_list(self):
        """A list rebuilt at the saved reference searches again at the same step as the one that ran on."""
        frames = list(walk(4))
        kept = NeighborList(4.0, 0.6)
        for systems in frames[:10]:
            kept.update(systems)
        assert not torch.equal(kept.reference, frames[9].positions)
        again = NeighborList(4.0, 0.6)
        again.rebuild_at(frames[0].with_positions(kept.reference.clone()))
        first = kept.rebuilds - 1
        for systems in frames[10:]:
            assert same(kept.update(systems), again.update(systems))
            assert kept.rebuilds - first == again.rebuilds

    def test_a_copy_searches_for_itself(self):
        kept = NeighborList(4.0, 0.5)
        kept.update(build([[0, 0, 0], [3, 0, 0]]))
        for other in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
            assert other.reference is None and (other.cutoff, other.skin) == (4.0, 0.5)
        assert kept.reference is not None

    def test_positions_that_are_not_finite(self):
        systems = build([[0, 0, 0], [3, 0, 0]])
        kept = NeighborList(4.0)
        kept.update(systems)
        positions = systems.positions.clone()
        positions[1, 2] = np.nan
        with pytest.raises(InputError, match="position of atom 1"):
            kept.update(systems.with_positions(positions))

    @pytest.mark.parametrize(("cutoff", "skin"), [(0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (4.0, -0.1), (4.0, np.inf)])
    def test_bad_settings(self, cutoff, skin):
        with pytest.raises(InputError, match="given; a finite number"):
            NeighborList(cutoff, skin)


def test_water_box_has_the_known_density_of_pairs():
    """An independent number: N neighbours on average are density times sphere, for random points."""
    rng = np.random.default_rng(0)
    atoms = Atoms("He300", rng.uniform(0, 15, (300, 3)), cell=[15] * 3, pbc=True)
    systems = Systems.from_atoms(atoms)
    found = neighbors(systems, 5.0).mask.sum() / 300
    assert abs(found - 300 / 15**3 * 4 / 3 * np.pi * 5**3) < 2.0
