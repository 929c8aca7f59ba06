"""Weights for molecules only: in OpenMM too they compute what ASE's calculator does, and refuse a periodic box."""

import numpy as np
import pytest
from ase.build import molecule

pytest.importorskip("openmmml")

import openmm  # noqa: E402
from openmm import app, unit  # noqa: E402
from openmmml import MLPotential  # noqa: E402

from omnicalc import OmniCalc  # noqa: E402
from omnicalc.errors import InputError  # noqa: E402
from omnicalc.md.topology import write_topology  # noqa: E402
from tests.tiny_weights import write_weights  # noqa: E402


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_same_as_the_calculator(tmp_path, forces, monkeypatch):
    settings = {"size": "tiny", "width": 16, "attention_heads": 2, "forces": forces}
    write_weights(tmp_path / "w", heads={"a": ("H", "C", "O")}, spins=(1,), family="omnimol", settings=settings)
    atoms = molecule("CH3CH2OH")
    write_topology(tmp_path / "m.pdb", atoms)
    topology = app.PDBFile(str(tmp_path / "m.pdb")).topology
    potential = MLPotential("omnicalc", modelPath=str(tmp_path / "w"))
    system = potential.createSystem(topology)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.0005), platform)
    context.setPositions(atoms.positions * 0.1)
    state = context.getState(getEnergy=True, getForces=True)
    atoms.calc = OmniCalc(tmp_path / "w")
    ev = unit.kilojoule_per_mole * 96.48533212331
    assert state.getPotentialEnergy() / ev == pytest.approx(atoms.get_potential_energy(), abs=2e-5)
    found = np.array(state.getForces() / (ev / unit.angstrom))
    assert np.abs(found - atoms.get_forces()).max() < 1e-5
    topology.setUnitCellDimensions((2, 2, 2))
    with pytest.raises(InputError, match="periodic"):
        potential.createSystem(topology)
