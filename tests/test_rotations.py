"""Spread over orientations: zero of a model that has none, exact of one that is made to have some, and averages."""

import json

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from omnicalc import AllScAIPCalculator, load_potential
from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.potential import Head, Potential
from omnicalc.registry import BUNDLED
from omnicalc.rotations import Turned, rotation_matrices, rotation_spread, turned
from tests.command import omnicalc


@pytest.fixture(scope="module")
def allscaip() -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("allscaip", {"heads": ["a"], "preset": "tiny", "layers": 1, "n_radial": 8})
        torch.nn.init.normal_(model.input.element.weight)
    model = model.double().requires_grad_(False).eval()
    return Potential(model, [Head("a", {1: 0.0, 8: 0.0})])


def test_rotations_are_rotations_and_fill_the_sphere():
    matrices = rotation_matrices(2000)
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(matrices), 1)
    assert np.allclose(matrices[0], np.eye(3)) and np.abs(matrices.mean(axis=0)).max() < 0.05
    assert np.allclose(matrices[:24], rotation_matrices(24))
    with pytest.raises(InputError, match="1 rotations given; 2 or more"):
        rotation_matrices(1)


def test_spread_is_a_standard_deviation():
    forces = np.zeros((2, 3, 3))
    forces[1] = 0.2
    found = Turned(np.array([1.0, 1.6]), forces).spread
    assert found.energy == pytest.approx(100) and found.force == pytest.approx(100)


def test_an_invariant_model_has_no_spread_and_another_has(allscaip):
    water = molecule("H2O")
    water.positions += [[0.01, 0.02, 0.03], [-0.02, 0.01, 0.0], [0.0, 0.03, -0.01]]
    invariant = rotation_spread(load_potential("ubio-s3", dtype="float64", kernel="torch", device="cpu"), water, 4)
    assert invariant.energy < 1e-6 and invariant.force < 1e-6
    assert rotation_spread(allscaip, water, 4).energy > 1e-2
    found = turned(allscaip, water, 4)
    assert np.allclose(found.mean[0], found.energies.mean())
    assert len(set(found.energies.round(9))) == 4


def test_average_over_the_cube_is_the_same_however_the_cube_is_turned(allscaip):
    """Energy and forces; and the forces are the gradient of that energy. One orientation alone is none of that."""
    atoms, other = molecule("H2O"), molecule("H2O")
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    other.positions = atoms.positions @ quarter.T
    energies, forces = {}, {}
    for count in (1, 24):
        calc = AllScAIPCalculator.__new__(AllScAIPCalculator)
        calc.family = None  # the potential has no card
        AllScAIPCalculator.__init__(calc, allscaip, rotations=count)
        energies[count] = [calc.get_potential_energy(a) for a in (atoms, other)]
        forces[count] = [calc.get_forces(a) for a in (atoms, other)]
    assert energies[24][0] == pytest.approx(energies[24][1], abs=1e-9)
    assert np.abs(forces[24][0] @ quarter.T - forces[24][1]).max() < 1e-9
    assert abs(energies[1][0] - energies[1][1]) > 1e-6
    step, moved = 1e-4, []
    for sign in (1, -1):
        pushed = atoms.copy()
        pushed.positions[1, 2] += sign * step
        moved.append(calc.get_potential_energy(pushed))
    assert -(moved[0] - moved[1]) / (2 * step) == pytest.approx(forces[24][0][1, 2], abs=1e-6)
    calc.potential.model.set_options(rotations=1)
    with pytest.raises(InputError, match="rotations = 5 is not supported; choose one of: 1, 4, 12, 24"):
        calc.potential.model.set_options(rotations=5)
    for count in (24.0, True):
        with pytest.raises(InputError, match=f"rotations = {count} given; a whole number"):
            calc.potential.model.set_options(rotations=count)


def test_evaluate_prints_the_spread(tmp_path):
    water = molecule("H2O", cell=[9, 9, 9], pbc=True)
    water.calc = SinglePointCalculator(water, energy=-470.0, forces=np.zeros((3, 3)))
    write(tmp_path / "data.xyz", water)
    arguments = ("evaluate", BUNDLED / "ubio-s3-small-0.1", tmp_path / "data.xyz", "--rotations", 3)
    assert "spread over 3 orientations" in omnicalc(*arguments)
    assert json.loads(omnicalc(*arguments, "--json"))["spread"]["rotations"] == 3
