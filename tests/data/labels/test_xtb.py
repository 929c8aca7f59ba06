"""GFN2-xTB labels: against xtb, against finite differences, and what they refuse."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from omnicalc.data.labels.label import LabelError
from omnicalc.errors import InputError

pytest.importorskip("tblite", exc_type=ImportError)
from omnicalc.data.labels.xtb import Xtb  # noqa: E402

WATER_BY_XTB = -137.9677758730299  # eV, ase.build.molecule("H2O"); printed in the documentation of xtb-python


def test_energy_is_that_of_xtb():
    label = Xtb()(molecule("H2O"))
    assert label.energy == pytest.approx(WATER_BY_XTB, abs=1e-5)
    assert np.abs(label.forces.sum(axis=0)).max() < 1e-6


@pytest.mark.parametrize("charge", [0, 1])
def test_forces_are_the_slope_of_the_energy(charge):
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    atoms.info["charge"] = charge
    xtb, step = Xtb(), 1e-3
    forces = xtb(atoms).forces
    for atom, axis in ((0, 0), (3, 2)):
        moved = [atoms.copy(), atoms.copy()]
        for sign, copy in zip((1, -1), moved, strict=True):
            copy.positions[atom, axis] += sign * step
        slope = (xtb(moved[1]).energy - xtb(moved[0]).energy) / (2 * step)
        assert forces[atom, axis] == pytest.approx(slope, abs=2e-4)
        assert abs(forces[atom, axis]) > 0.01  # zero would agree with anything


def test_a_guess_changes_nothing_but_time():
    fresh, reusing = Xtb(), Xtb(reuse=True)
    atoms = molecule("CH3OH")
    for seed in range(3):
        atoms.rattle(0.02, seed=seed)
        one, other = fresh(atoms), reusing(atoms)
        assert one.energy == pytest.approx(other.energy, abs=1e-5)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-4)
    other_molecule = molecule("H2O")  # and the guess of another composition is not used
    assert reusing(other_molecule).energy == pytest.approx(WATER_BY_XTB, abs=1e-5)


def test_charge_and_spin_reach_the_program():
    water = molecule("H2O")
    cation = molecule("H2O")
    cation.info["charge"] = 1
    assert 8 < Xtb()(cation).energy - Xtb()(water).energy < 20  # eV; ionisation, 12.6 by experiment


def test_no_periodic_structures():
    atoms = molecule("H2O", vacuum=5.0)
    atoms.pbc = True
    with pytest.raises(InputError, match="periodic"):
        Xtb()(atoms)


def test_what_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr("omnicalc.data.labels.xtb._LADDER", ({"max-iter": 1}, {"max-iter": 2}))
    with pytest.raises(LabelError, match="not converged in 2 cycles"):
        Xtb(rungs=2)(molecule("CH3OH"))
    monkeypatch.setattr("omnicalc.data.labels.xtb._LADDER", ({"max-iter": 1}, {}))
    label = Xtb(rungs=2)(molecule("CH3OH"))  # the second rung rescues, and says so
    assert label.notes == {"scf_rung": 1}


def test_two_atoms_on_top_of_each_other():
    with pytest.raises((LabelError, InputError)):
        Xtb()(Atoms("H2", [[0, 0, 0], [0, 0, 0]]))
