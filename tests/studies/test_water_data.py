"""Structures and labels that the small weights of water learn from (analysis/water)."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from analysis.water import breaking_bonds
from analysis.water.monomers import shapes, shift
from analysis.water.quantum_clusters import cluster
from analysis.water.teacher import WATER, scaled


@pytest.mark.parametrize("factor", [0.97, 1.08])
def test_a_scaled_box_keeps_its_molecules(factor):
    box = read(WATER)
    box.positions += 3.0  # molecules across the faces
    box.wrap()
    result = scaled(box, factor)
    assert result.get_volume() == pytest.approx(factor**3 * box.get_volume())
    bonds = [(o, o + k) for o in range(0, len(box), 3) for k in (1, 2)]
    for atoms in (box, result):
        assert all(set(atoms.symbols[list(pair)]) == {"O", "H"} for pair in bonds)
    before = [box.get_distance(*pair, mic=True) for pair in bonds]
    after = [result.get_distance(*pair, mic=True) for pair in bonds]
    np.testing.assert_allclose(after, before, atol=1e-9)
    oxygen = [atom.index for atom in box if atom.symbol == "O"]
    far = box.get_distance(oxygen[0], oxygen[1], mic=True)
    assert result.get_distance(oxygen[0], oxygen[1], mic=True) == pytest.approx(factor * far, rel=0.05)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_cluster_is_of_whole_molecules_that_are_neighbours(size):
    found = cluster(read(WATER), size, np.random.default_rng(3))
    assert list(found.symbols) == list("OHH" * size) and not found.pbc.any()
    apart = found.get_all_distances()
    for first in range(0, len(found), 3):
        assert apart[first, first + 1 : first + 3].max() < 1.2
    if size > 1:
        between = apart[0, 3::3]
        assert between.min() < 3.3 and (np.diff(between) >= 0).all()


def test_the_longest_bond_and_the_nearest_hydrogens_are_found_across_the_faces():
    box = read(WATER)
    along = box.positions[4] - box.positions[3]
    box.positions[4] = box.positions[3] + along * (1.4 / np.linalg.norm(along))
    box.positions[9:12] += box.positions[31] + [0.0, 0.0, 0.4] - box.positions[10]
    box.wrap()
    found = breaking_bonds.events(box)
    assert found["long"] == (pytest.approx(1.4), 4)
    assert found["close"][0] == pytest.approx(0.4) and found["close"][1] in (10, 31)


def test_a_cluster_around_a_leaving_hydrogen_is_neutral_and_whole():
    box = read(WATER)
    oxygens = np.flatnonzero(box.numbers == 8)
    near = min((o for o in oxygens if o != 6), key=lambda o: box.get_distance(6, o, mic=True))
    along = box.get_distance(6, near, mic=True, vector=True)
    box.positions[7] = box.positions[6] + along * (1.7 / np.linalg.norm(along))  # a proton on its way to the other
    box.positions += box.cell.sum(axis=0) / 2 - box.positions[7]
    middle = breaking_bonds.cluster(box, 7, 3)
    box.positions -= box.positions[7]  # now the border runs through the cluster
    box.wrap()
    found = breaking_bonds.cluster(box, 7, 3)
    assert list(found.symbols) == list("OHH" * 3)
    np.testing.assert_allclose(found.get_all_distances(), middle.get_all_distances(), atol=1e-9)
    assert found.get_distance(0, 1) == pytest.approx(1.7) and np.linalg.norm(found.positions[1]) < 1e-9
    assert found.get_distance(1, 3) == pytest.approx(np.linalg.norm(along) - 1.7)  # the one it goes to


def test_shapes_of_one_water():
    found = shapes(seed=0)
    assert len(found) == 160 and found[0].info["origin"] == "rest"
    bonds = np.array([atoms.get_all_distances()[0, 1:] for atoms in found])
    assert bonds.min() > 0.77 and 1.6 < bonds.max() < 1.8 and (bonds > 1.35).any(axis=1).mean() < 0.25
    np.testing.assert_array_equal(found[7].positions, shapes(seed=0)[7].positions)


def test_energies_are_moved_by_one_constant(tmp_path):
    frames = []
    for number, energy in enumerate([-2078.0, -2077.0, -2077.5]):
        atoms = Atoms(
            "OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93 + 0.01 * number, 0]], info={"level_of_theory": "pbe0"}
        )
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.full((3, 3), number, float))
        frames.append(atoms)
    pair = frames[0] + frames[1]
    pair.info["level_of_theory"] = "pbe0"
    pair.calc = SinglePointCalculator(pair, energy=-4156.0, forces=np.zeros((6, 3)))
    write(tmp_path / "labels.xyz", [*frames, pair], format="extxyz")
    moved = shift([tmp_path / "labels.xyz"], lowest=-467.0)  # of single molecules alone
    assert [atoms.get_potential_energy() for atoms in moved] == pytest.approx([-467.0, -466.0, -466.5])
    np.testing.assert_array_equal([atoms.get_forces()[0, 0] for atoms in moved], [0, 1, 2])
    assert "1611.000000 eV" in moved[0].info["level_of_theory"]
