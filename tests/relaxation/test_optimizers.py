"""Optimisers against ASE's, step by step; the coordinates of a moving cell against finite differences."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.optimize import FIRE, LBFGS

from omnicalc.relaxation import coordinates as coordinates_file
from omnicalc.relaxation.coordinates import AtomsAndCell
from omnicalc.relaxation.fire import Fire, capped
from omnicalc.relaxation.lbfgs import Lbfgs
from omnicalc.systems import Systems
from tests.lennard_jones import lennard_jones
from tests.md.toy import argon


def cluster() -> Atoms:
    atoms = argon(1)
    atoms.pbc = False
    atoms.set_cell(None)
    return Atoms("Ar8", np.concatenate([atoms.positions, atoms.positions + [0, 0, 4.4]]))


def evaluate(atoms: Atoms, stress: bool = False):
    bound = lennard_jones().bind(Systems.from_atoms(atoms))
    found = bound(torch.tensor(atoms.positions), stress=stress)
    return float(found.energy), found.forces.numpy(), found.stress[0].numpy() if stress else None


class _Calculator(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        energy, forces, _ = evaluate(atoms)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


def path(optimizer, steps: int, start: Atoms) -> list[np.ndarray]:
    atoms, found = start.copy(), []
    for _ in range(steps):
        energy, forces, _ = evaluate(atoms)
        atoms.positions += optimizer.step(atoms.positions, forces, energy)
        found.append(atoms.positions.copy())
    return found


@pytest.mark.parametrize(("ours", "theirs"), [(Fire, FIRE), (Lbfgs, LBFGS)])
def test_steps_equal_those_of_ase(ours, theirs):
    """Within the steps that no safeguard of ours or theirs shortens or resets."""
    atoms = cluster()
    atoms.calc = _Calculator()
    more = {"maxstep": 100.0} if theirs is FIRE else {"maxstep": 0.2}
    optimizer = theirs(atoms, logfile=None, **more)
    for expected in path(ours(0.2), 25, cluster()):
        optimizer.run(fmax=1e-12, steps=1)
        assert np.abs(expected - atoms.positions).max() < 1e-10


@pytest.mark.parametrize("make", [Fire, Lbfgs])
def test_a_restored_optimizer_goes_on_bit_for_bit(make):
    whole = path(make(0.2), 30, cluster())
    first = make(0.2)
    path(first, 12, cluster())
    again = make(0.2)
    again.restore({k: np.array(v) for k, v in first.to_arrays().items()})
    middle = cluster()
    middle.positions = whole[11]
    assert np.array_equal(path(again, 18, middle)[-1], whole[-1])
    assert not np.array_equal(path(make(0.2), 18, middle)[-1], whole[-1])  # the wrong variant: memory lost


def test_no_atom_moves_farther_than_allowed():
    long = np.array([[3.0, 4.0, 0.0], [0.1, 0.0, 0.0]])
    assert capped(long, 0.5) == pytest.approx(long / 10) and capped(long, 6.0) is long


def test_lbfgs_forgets_a_curvature_that_led_uphill():
    optimizer, ones = Lbfgs(1.0), np.ones((2, 3))
    optimizer.step(ones, ones, 0.0)
    optimizer.step(1.1 * ones, 0.8 * ones, -0.1)
    assert len(optimizer.s) == 1
    optimizer.step(1.2 * ones, 0.9 * ones, 0.5)
    assert not optimizer.s
    optimizer.step(1.3 * ones, 1.0 * ones, 0.4)  # a negative curvature
    assert not optimizer.s


def skewed() -> Atoms:
    atoms = argon(1, 5.1)
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.1, 0.0], [0.0, 1.05, -0.05], [0.02, 0.0, 0.97]], scale_atoms=True)
    return atoms.repeat(2)


def enthalpy(space: AtomsAndCell, start: Atoms, pressure: float, x: np.ndarray):
    atoms, space.x = start.copy(), x
    positions, cell = space.structure()
    atoms.set_cell(cell)
    atoms.positions = positions
    energy, forces, stress = evaluate(atoms, stress=True)
    return energy + pressure * atoms.get_volume(), space.forces(forces, stress)


def cell_error() -> float:
    """Largest deviation of the force on atoms and cell from finite differences of the enthalpy, relative."""
    start, pressure = skewed(), 500.0 * units.bar
    space = AtomsAndCell(start.positions, start.cell.array, "anisotropic", pressure)
    generator = np.random.default_rng(3)
    x = space.x.copy()
    strain = 0.08 * generator.normal(size=(3, 3))
    x[-3:] = len(start) * 0.5 * (strain + strain.T)
    errors = []
    for _ in range(6):
        d = generator.normal(size=x.shape)
        d[-3:] = 0.5 * (d[-3:] + d[-3:].T) * len(start)
        d[:-3] *= 0.1
        (high, _), (low, _) = (enthalpy(space, start, pressure, x + h * d) for h in (1e-5, -1e-5))
        slope = -np.vdot(enthalpy(space, start, pressure, x)[1], d)
        errors.append(abs((high - low) / 2e-5 - slope) / abs(slope))
    return max(errors)


def test_force_on_the_cell_is_the_gradient_of_the_enthalpy():
    assert cell_error() < 1e-6


def test_a_gradient_without_the_derivative_of_the_exponential_is_seen(monkeypatch):
    """The wrong variant."""
    monkeypatch.setattr(coordinates_file, "_slopes", lambda rates: np.ones((3, 3)))
    assert cell_error() > 1e-3


def test_slopes_where_two_rates_are_the_same():
    near, same = coordinates_file._slopes(np.array([0.1, 0.1 + 1e-7, 0.3])), coordinates_file._slopes(np.full(3, 0.1))
    assert same == pytest.approx(np.exp(0.1)) and near[0, 1] == pytest.approx(np.exp(0.1), rel=1e-6)
    assert near[0, 2] == pytest.approx((np.exp(0.3) - np.exp(0.1)) / 0.2)
