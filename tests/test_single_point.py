"""One structure, one table: what the calculator says, and what was used."""

import json

import numpy as np
import pytest
from ase.build import molecule

from omnicalc import OmniCalc
from omnicalc.single_point import as_text, single_point
from tests.tiny_weights import write_weights


@pytest.fixture
def calc(tmp_path):
    write_weights(tmp_path, charges=(0, 1))
    return OmniCalc(tmp_path, dtype="float64", charge=1)


def test_equals_the_calculator(calc):
    atoms = molecule("H2O", cell=[3.5, 3.6, 3.7], pbc=True)
    point = single_point(atoms, calc)
    assert json.loads(json.dumps(point)) == point
    assert point["energy_eV"] == calc.get_property("energy", atoms)
    assert np.array_equal(point["forces_eV_per_A"], calc.get_property("forces", atoms))
    assert np.array_equal(point["stress_eV_per_A3"], calc.get_property("stress", atoms))
    assert sum(point["energies_eV"]) == pytest.approx(point["energy_eV"])
    assert (point["charge"], point["spin"], point["head"]) == (1, 2, "water-theory")
    assert point["model"] == calc.name_resolved and len(point["sha256"]) == 64


def test_stress_is_left_out_where_it_is_not_defined(calc):
    point = single_point(molecule("H2O"), calc)
    assert point["stress_eV_per_A3"] is None and "GPa" not in as_text(point)
    box = molecule("H2O", cell=[4] * 3, pbc=True)
    assert single_point(box, calc, stress=False)["stress_eV_per_A3"] is None


def test_text(calc):
    text = as_text(single_point(molecule("H2O", cell=[3.5, 3.6, 3.7], pbc=True), calc))
    assert "H2O, 3 atoms, periodic along abc, charge +1, spin 2" in text and "GPa; pressure" in text
    assert text.count("\n") == 8 and "     2 H " in text
    many = molecule("H2O", cell=[4] * 3, pbc=True) * (3, 2, 2)
    assert "forces on all 36 atoms: --json" in as_text(single_point(many, calc))
