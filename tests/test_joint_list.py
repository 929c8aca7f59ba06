"""Neighbour lists of several structures as one: each structure's pairs are those it has alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from omnicalc import load_potential
from omnicalc.errors import InputError
from omnicalc.joint_list import JointList
from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import neighbors
from omnicalc.potential import BoundPotential
from omnicalc.systems import Systems, cat, split


def structures() -> list[Atoms]:
    """Three of different sizes, cells and periodic axes; one without neighbours at all."""
    box = molecule("H2O", cell=[3.2] * 3, pbc=True).repeat(2)
    box.rattle(0.05, seed=1)
    return [molecule("H2O"), box, Atoms("O", pbc=False), molecule("CH3OH", cell=[5, 6, 7], pbc=[True, False, True])]


def test_split_is_the_way_back_from_cat():
    parts = [Systems.from_atoms(a) for a in structures()]
    for one, other in zip(split(cat(parts)), parts, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(other) if name != "counts")


def test_dense_rows_are_those_of_one_search():
    batch = Systems.from_atoms(structures())
    found = JointList([NeighborList(3.0, 0.5) for _ in structures()]).update(batch)
    expected = neighbors(batch, 3.0)
    for name in ("index", "shift", "mask"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    a, b = (x.vectors(batch.positions, batch.cell, batch.system) for x in (found, expected))
    assert torch.equal(a, b)


def test_only_the_structure_that_moved_is_searched_again():
    lists = [NeighborList(3.0, 0.5) for _ in structures()]
    joint, batch = JointList(lists), Systems.from_atoms(structures())
    first = joint.pairs_with_skin(batch)
    assert joint.pairs_with_skin(batch) is first
    moved = batch.positions.clone()
    moved[3] += 0.4
    second = joint.pairs_with_skin(batch.with_positions(moved))
    assert [each.rebuilds for each in lists] == [1, 2, 1, 1] and second is not first


@pytest.mark.parametrize("form", ["pairs_with_skin", "rows_with_skin"])
def test_only_lists_that_may_have_changed_are_asked(monkeypatch, form):
    """One look at all atoms tells; whatever else may have changed a list has every one asked."""
    asked, ask = [], getattr(NeighborList, form)
    monkeypatch.setattr(NeighborList, form, lambda self, part: asked.append(lists.index(self)) or ask(self, part))
    lists = [NeighborList(3.0, 0.5) for _ in structures()]
    joint, batch = JointList(lists), Systems.from_atoms(structures())

    def call(positions, systems=batch) -> list[int]:
        asked.clear()
        getattr(joint, form)(systems.with_positions(positions))
        return list(asked)

    everyone, start = [0, 1, 2, 3], batch.positions
    assert call(start) == everyone and call(start + 0.1) == []
    moved, broken = start.clone(), start.clone()
    moved[3] += 0.4
    broken[0] = torch.nan
    assert call(moved) == [1] and call(moved) == []
    with pytest.raises(InputError):
        call(broken)
    lists[2].rebuild_at(split(batch)[2])
    assert call(moved) == everyone and call(moved) == []
    assert call(moved, replace(batch, cell=batch.cell.clone())) == everyone
    batch.cell[1] *= 1.01
    assert call(moved) == everyone and [each.rebuilds for each in lists] == [1, 3, 2, 1]


def test_flat_pairs_are_the_single_ones_side_by_side():
    parts = [Systems.from_atoms(a) for a in structures()]
    joined = JointList([NeighborList(3.0, 0.5) for _ in parts]).pairs_with_skin(cat(parts))
    atoms = pairs = 0
    for part in parts:
        alone = NeighborList(3.0, 0.5).pairs_with_skin(part)
        n, e = len(alone.row) - 1, len(alone.source)
        assert np.array_equal(joined.row[atoms : atoms + n + 1] - pairs, alone.row)
        mine = slice(pairs, pairs + e)
        assert np.array_equal(joined.source[mine] - atoms, alone.source)
        assert np.array_equal(joined.reverse[mine] - pairs, alone.reverse)
        assert np.array_equal(joined.offset[mine], alone.offset)
        atoms, pairs = atoms + n, pairs + e
    assert (joined.row[-1], joined.row.dtype, joined.source.dtype) == (pairs, np.int64, np.int32)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_a_batch_repeats_single_calls(kernel):
    potential = load_potential("ubio-s3", device="cpu", kernel=kernel)
    box = molecule("H2O", cell=[3.4] * 3, pbc=True).repeat(2)
    frames = [box.copy() for _ in range(3)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.03, seed=k)
    systems = [Systems.from_atoms(a) for a in frames]
    lists = JointList([NeighborList(potential.cutoff) for _ in frames])
    together = BoundPotential(potential, cat(systems), "pbe0-ts", lists)(cat(systems).positions, stress=True)
    native = potential.kernel.describe(potential, systems[0].numbers).startswith("native")
    for k, each in enumerate(systems):
        alone = potential.bind(each, head="pbe0-ts")(each.positions, stress=True)
        forces = together.forces[24 * k : 24 * (k + 1)]
        assert torch.equal(forces, alone.forces) if native else torch.allclose(forces, alone.forces, atol=2e-5)
        assert torch.allclose(together.energy[k], alone.energy[0], atol=1e-4, rtol=0)
        assert torch.allclose(together.stress[k], alone.stress[0], atol=1e-6)
