"""Surroundings of atoms: counted right, and compared with what training data had."""

from dataclasses import fields, replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from omnicalc.errors import WeightsError
from omnicalc.known_surroundings import FILE, Known, read_known, write_known
from omnicalc.surroundings import REACH, SHELL, surroundings

KINDS = (1, 8, 11, 17, 19)


def around(*frames: Atoms, kinds=KINDS):
    """Surroundings in all ``frames`` at once."""
    return surroundings(
        kinds,
        np.concatenate([a.numbers for a in frames]),
        np.concatenate([a.positions for a in frames]),
        np.array([len(a) for a in frames]),
        np.array([a.cell.array for a in frames]),
        np.array([a.pbc for a in frames]),
    )


def by_ase(atoms: Atoms):
    """Bonds, shell and closest (N, E) by ASE's neighbour list."""
    shape = len(atoms), len(KINDS)
    bonds, shell, closest = np.zeros(shape, int), np.zeros(shape, int), np.full(shape, np.inf)
    for i, j, d in zip(*neighbor_list("ijd", atoms, 6.0), strict=True):
        a, b = atoms.numbers[[i, j]]
        k, bonding = KINDS.index(b), 1.3 * (covalent_radii[a] + covalent_radii[b])
        bonds[i, k] += d < bonding
        shell[i, k] += d < SHELL and a > 1 and b > 1
        if d < max(REACH, bonding):
            closest[i, k] = min(closest[i, k], d)
    return bonds, shell, closest


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=4)
    return atoms


SALT = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
FRAMES = {
    "cell thinner than the radius": [rattled(bulk("NaCl", "rocksalt", a=5.64))],
    "one atom and its images": [bulk("K", "bcc", a=5.33)],
    "slab": [Atoms(rattled(SALT.copy()), pbc=(True, True, False))],
    "molecules": [molecule("H2O"), molecule("HCl"), Atoms("K"), molecule("NaCl")],
    "molecules and boxes": [molecule("H2O"), rattled(SALT.copy()), Atoms("NaCl", [[0, 0, 0], [4.4, 0, 0]])],
}


@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES)
def test_counts_and_distances_are_those_of_another_neighbour_list(frames):
    found = around(*frames)
    bonds, shell, closest = (np.concatenate(parts) for parts in zip(*map(by_ase, frames), strict=True))
    assert np.array_equal(found.bonds, bonds) and np.array_equal(found.shell, shell)
    assert np.allclose(found.closest, closest, rtol=0, atol=1e-12)
    assert [KINDS[row] for row in found.rows] == [z for a in frames for z in a.numbers]


def bounds(**given) -> Known:
    """Of O and H, with nothing beyond them but what is ``given``."""
    usual = {
        "least": np.zeros((2, 2)),
        "most": np.full((2, 2), 9.0),
        "shell": np.full((2, 2), np.inf),
        "closest": np.zeros((2, 2)),
        "farthest": np.full((2, 2), 9.0),
        "fewest": np.zeros(2),
        "alone": np.ones(2),
    }
    return Known((1, 8), **usual | {name: np.array(bound, dtype=float) for name, bound in given.items()})


WATER = molecule("H2O")  # O, H, H
FAR = Atoms("OH", [[0, 0, 0], [2.0, 0, 0]])
CASES = {
    "most": (WATER, [[9, 9], [1, 9]], 0, "has 2 H within 1.26 Å, none had more than 1"),
    "least": (WATER, [[0, 2], [0, 0]], 1, "has 1 O within 1.26 Å, none had fewer than 2"),
    "closest": (WATER, [[0, 1.2], [0, 0]], 1, "has O at 0.97 Å, none nearer than 1.20 Å"),
    "shell": (Atoms("O4", [[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]]), [[9, 9], [9, 1]], 0, "has 3 O within 3.5 Å"),
    "alone": (Atoms("O"), [1, 0], 0, "has no other atom near, all had one"),
    "farthest": (FAR, [[9, 1.7], [9, 9]], 1, "has O at 2.00 Å as its nearest atom, which was at 1.70 Å at most"),
    "fewest": (FAR, [0, 1], 0, "has 0 neighbours at bonding distances, none had fewer than 1"),
}


@pytest.mark.parametrize("bound", CASES)
def test_every_bound_is_told(bound):
    atoms, value, atom, words = CASES[bound]
    found = around(atoms, kinds=(1, 8))
    assert bounds().unlike(found) is None
    unlike = bounds(**{bound: value}).unlike(found)
    assert unlike.atom == atom and words in unlike.words and atom in unlike.atoms


def test_little_beyond_distances_and_shells_is_still_known():
    known = bounds(closest=[[0, 1.05], [1.05, 0]], shell=[[9, 9], [9, 2]], farthest=[[9, 1.95], [1.95, 9]])
    for atoms in (WATER, CASES["shell"][0], FAR):
        assert known.unlike(around(atoms, kinds=(1, 8))) is None


def test_the_file_gives_back_the_same_bounds(tmp_path):
    known = bounds(closest=[[np.inf, 0.957], [0.957, 2.5]], shell=[[0, 0], [0, 11]])
    write_known(tmp_path / FILE, {"a/b": known})
    (again,) = read_known(tmp_path / FILE).values()
    assert all(np.array_equal(getattr(again, f.name), getattr(known, f.name)) for f in fields(Known))
    assert read_known(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["", "[]", "{}x", '{"a": {}}', '{"a": {"elements": ["H"], "least": [[0, 1]]}}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(WeightsError, match="is damaged"):
        read_known(tmp_path / FILE)


def test_what_either_of_two_knows():
    salt = replace(bounds(least=[[1, 0], [0, 0]], most=[[3, 2], [0, 1]]), elements=(8, 11))
    both = bounds(least=[[0, 1], [2, 0]], most=[[0, 1], [2, 0]]).merged(salt)
    assert both.elements == (1, 8, 11)
    assert both.least.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]  # only one of them had an O without H
    assert both.most.tolist() == [[0, 1, 0], [2, 3, 2], [0, 0, 1]]
    assert both.closest[0, 2] == np.inf and both.closest[1, 2] == 0
