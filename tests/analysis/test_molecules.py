import numpy as np
from ase import Atoms
from ase.build import molecule

from omnicalc.analysis.molecules import describe_molecules, guess_molecules

BOX = np.array([10.0, 10.0, 10.0, 90.0, 90.0, 90.0])


def test_molecules_hold_across_the_boundary_and_ions_stand_alone():
    parts = [(molecule("H2O"), (0.1, 5, 5)), (molecule("CH3OH"), (5, 9.8, 5)), (Atoms("Na"), (2.4, 5, 5))]
    parts += [(Atoms("Cl"), (5, 5, 5)), (molecule("H2O"), (5, 5, 9.9))]
    atoms = Atoms()
    for part, place in parts:
        part.translate(place)
        atoms += part
    atoms.set_cell([10, 10, 10])
    atoms.pbc = True
    atoms.wrap()
    elements = np.array(atoms.get_chemical_symbols())
    numbers = guess_molecules(atoms.positions.astype(np.float32), elements, BOX)
    expected = np.repeat([0, 1, 2, 3, 4], [3, 6, 1, 1, 3])
    assert np.array_equal(numbers[:, None] == numbers, expected[:, None] == expected)
    assert describe_molecules(numbers, elements) == "2 H2O, 1 CH4O, 1 Cl, 1 Na"
    apart = guess_molecules(atoms.positions.astype(np.float32), elements, None)
    assert len(set(apart)) > 5, "without the box the molecules are cut"


def test_a_box_of_ions_has_no_bonds():
    elements = np.array(["Na"] * 3)
    numbers = guess_molecules(np.random.default_rng(0).random((3, 3)).astype(np.float32), elements, BOX)
    assert len(set(numbers)) == 3
