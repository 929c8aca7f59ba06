"""Which structures count as one geometry."""

import numpy as np
from ase import Atoms

from omnicalc.data.geometry_digest import geometry_digest, placed_anywhere_digest

ETHANOL = Atoms("C2H6O", np.random.default_rng(0).normal(scale=1.5, size=(9, 3)).round(5))


def test_stored_digests_stay_what_they_are():
    """Label stores and resumed trainings hold them."""
    water = Atoms("OH2", [[0, 0, 0], [0.9572, 0, 0], [-0.24, 0.9266, 0]], cell=[9, 9, 9], pbc=True)
    assert geometry_digest(water).hex() == "8d0f1bab8cf14e6f955ea20c"


def test_a_molecule_is_one_geometry_wherever_it_stands():
    rng = np.random.default_rng(1)
    kept = 0
    for _ in range(50):
        copy = ETHANOL.copy()
        copy.translate(rng.normal(scale=20, size=3).round(5))
        assert placed_anywhere_digest(copy) == placed_anywhere_digest(ETHANOL)
        kept += geometry_digest(copy) == geometry_digest(ETHANOL)  # the wrong variant
    assert kept == 0
    boxed, ion = ETHANOL.copy(), ETHANOL.copy()
    boxed.set_cell([30.0, 30, 30])
    assert placed_anywhere_digest(boxed) == placed_anywhere_digest(ETHANOL)
    ion.info["charge"] = 1
    assert placed_anywhere_digest(ion) != placed_anywhere_digest(ETHANOL)
    for unknown in ("neutral", float("nan"), np.array([1, 2])):
        ion.info["charge"] = unknown  # not for the digest to refuse
        assert placed_anywhere_digest(ion) == placed_anywhere_digest(ETHANOL)
    moved = ETHANOL.copy()
    moved.positions[3, 1] += 2e-4
    assert placed_anywhere_digest(moved) != placed_anywhere_digest(ETHANOL)


def test_a_periodic_structure_is_taken_as_it_stands():
    box = ETHANOL.copy()
    box.set_cell([12.0, 12, 12])
    box.pbc = True
    copy = box.copy()
    assert placed_anywhere_digest(copy) == placed_anywhere_digest(box)
    copy.translate([1.0, 0, 0])
    assert placed_anywhere_digest(copy) != placed_anywhere_digest(box)
