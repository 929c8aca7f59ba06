"""Soft cores: nothing beyond their radius, a repulsion within, the same on every kernel."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.errors import WeightsError
from omnicalc.kernel_choice import KernelChoice
from omnicalc.models import build_model
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.contracts.structures import triclinic_waters

CORES = [[1, 1, 1.6], [1, 8, 1.1]]


def potential(dtype=torch.float64, cores=CORES, kernel="torch") -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", {"heads": ["a"], "elements": [1, 8], "channels": 16, "cores": cores})
    found = Potential(model.to(dtype), [Head("a", {1: 0.0, 8: 0.0})]).requires_grad_(False)
    found.kernel = KernelChoice(kernel)
    return found


def predict(found: Potential, atoms: Atoms, **options):
    return found.predict(Systems.from_atoms(atoms), NeighborList(found.cutoff), head="a", **options)


def pair(symbols: str, r: float) -> Atoms:
    return Atoms(symbols, [[0, 0, 0], [r, 0, 0]])


def test_energy_is_the_formula_and_nothing_beyond():
    for symbols, r, wanted in (("H2", 0.8, 100 * 0.5**3), ("OH", 0.55, 12.5), ("OH", 1.1, 0), ("O2", 0.5, 0)):
        with_core, without = (predict(potential(cores=c), pair(symbols, r)).energy for c in (CORES, []))
        assert (with_core - without).item() == pytest.approx(wanted, abs=1e-9)


def test_forces_and_stress_are_derivatives():
    box = triclinic_waters()
    box.rattle(0.15, seed=1)
    right, h = predict(potential(), box, stress=True), 1e-5
    inside = predict(potential(cores=[]), box)
    assert (right.forces - inside.forces).abs().max() > 1  # the cores do act here
    for axis in range(3):
        moved = [box.copy(), box.copy()]
        for atoms, sign in zip(moved, (1, -1), strict=True):
            atoms.positions[2, axis] += sign * h
        up, down = (predict(potential(), atoms).energy.item() for atoms in moved)
        assert (down - up) / (2 * h) == pytest.approx(right.forces[2, axis].item(), abs=1e-5)
    strained = []
    for sign in (1, -1):
        atoms = box.copy()
        atoms.set_cell(box.cell.array * (1 + sign * h), scale_atoms=True)
        strained.append(predict(potential(), atoms).energy.item())
    trace = (strained[0] - strained[1]) / (2 * h) / box.get_volume()
    assert trace == pytest.approx(right.stress[0].trace().item(), abs=1e-6)


def test_native_kernel_agrees():
    box = triclinic_waters()
    box.rattle(0.15, seed=1)
    native = potential(torch.float32, kernel="native")
    exact, fast = predict(potential(), box, stress=True), predict(native, box, stress=True)
    assert (exact.energies - fast.energies).abs().max() < 2e-5
    assert (exact.forces - fast.forces).abs().max() < 2e-4
    assert (exact.stress - fast.stress).abs().max() < 1e-5
    none = predict(potential(torch.float32, cores=[], kernel="native"), box)
    assert (exact.forces - none.forces).abs().max() > 1  # the wrong variant: a kernel that forgets the cores


def test_the_way_inwards_is_uphill():
    """With a core the energy of two hydrogens only rises as they come closer; this network alone does not do so."""

    def rises(cores):
        energies = [predict(potential(cores=cores), pair("H2", r)).energy.item() for r in np.arange(0.12, 1.3, 0.02)]
        return all(near > far for near, far in pairwise(energies))

    assert rises(CORES)
    assert not rises([])


@pytest.mark.parametrize(
    "cores, message",
    [([[1, 7, 1.0]], "two of the elements"), ([[1, 1]], "two of the elements"), ([[1, 1, 9.0]], "0 and the cutoff")],
)
def test_cores_that_cannot_be(cores, message):
    with pytest.raises(WeightsError, match=message):
        potential(cores=cores)
