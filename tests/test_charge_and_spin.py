"""Charge and spin are decided once, by one rule."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from omnicalc.charge_and_spin import charge_and_spin, in_words, origins
from omnicalc.errors import InputError
from omnicalc.systems import Systems


def refused(text: str, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        charge_and_spin(*args, **kwargs)
    assert text in str(caught.value), str(caught.value)


def test_defaults_have_the_lowest_multiplicity_of_the_right_parity():
    assert charge_and_spin(molecule("H2O")) == (0, 1)
    assert charge_and_spin(molecule("CH3")) == (0, 2)
    assert charge_and_spin(molecule("H2O"), charge=1) == (1, 2)
    assert charge_and_spin(Atoms("H"), charge=1) == (1, 1)


def test_info_comes_first_then_the_argument():
    atoms = molecule("O2")
    assert charge_and_spin(atoms, spin=3) == (0, 3)
    atoms.info.update(charge=np.int64(2), spin=3.0)
    assert charge_and_spin(atoms) == (2, 3)
    assert charge_and_spin(atoms, charge=2, spin=3) == (2, 3)


def test_where_they_come_from_is_told():
    """A doublet that nobody asked for is not said to be given."""
    radical, ion = molecule("CH3"), Atoms("Na")
    ion.set_initial_charges([1.0])
    assert origins(radical) == ("zero", "lowest") and origins(ion) == ("initial charges", "lowest")
    assert origins(radical, charge=0, spin=4) == ("option", "option")
    radical.info["spin"] = 2
    assert origins(radical, spin=2) == ("zero", "structure")
    assert in_words(2, "lowest") == "spin 2 (the lowest possible, none was given)"
    assert in_words(2, "structure") == "spin 2" and in_words(1, "lowest") == "spin 1"


def test_sources_that_disagree():
    atoms = molecule("H2O")
    atoms.info["charge"] = 0
    refused("atoms.info['charge'] is 0 but charge=1", atoms, charge=1)
    atoms.info["spin"] = 1
    refused("atoms.info['spin'] is 1 but spin=3", atoms, spin=3)


@pytest.mark.parametrize("value", [0.5, "1", "one", np.nan, True, [1, 2], np.array([0, 1])])
def test_values_that_are_not_whole(value):
    atoms = molecule("H2O")
    atoms.info["charge"] = value
    refused("a whole number is needed", atoms)


def test_multiplicity_must_fit_the_electrons():
    refused("10 electrons (charge +0) need an odd multiplicity", molecule("H2O"), spin=2)
    refused("9 electrons (charge +1) need an even multiplicity", molecule("H2O"), charge=1, spin=1)
    refused("spin 0 given", molecule("H2O"), spin=0)
    refused("at most 3", Atoms("He"), spin=5)
    refused("the nuclei allow at most +2", Atoms("He"), charge=3)


def test_initial_charges_give_the_charge_when_nothing_else_does():
    atoms = Atoms("NaCl", [[0, 0, 0], [2.4, 0, 0]])
    atoms.set_initial_charges([1.0, -0.004])
    assert charge_and_spin(atoms) == (1, 2)
    atoms.set_initial_charges([0.8, -0.8])
    assert charge_and_spin(atoms) == (0, 1)
    atoms.set_initial_charges([0.8, -0.3])
    refused("not a whole number", atoms)
    assert charge_and_spin(atoms, charge=0) == (0, 1)  # 0.5 rounds to 0: no contradiction
    atoms.set_initial_charges([np.nan, 0])
    refused("initial charge", atoms)


def test_initial_charges_that_contradict():
    atoms = Atoms("NaCl", [[0, 0, 0], [2.4, 0, 0]])
    atoms.set_initial_charges([1.0, 0.0])
    refused("charge 0 contradicts the initial charges", atoms, charge=0)
    atoms.info["charge"] = 1
    assert charge_and_spin(atoms) == (1, 2)


def test_each_structure_of_a_batch_has_its_own():
    frames = [molecule("H2O"), molecule("OH")]
    frames[1].info["charge"] = -1
    systems = Systems.from_atoms(frames)
    assert systems.charge.tolist() == [0, -1] and systems.spin.tolist() == [1, 1]
