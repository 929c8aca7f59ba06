"""Every golden case through the published container and the command line: same energies and forces as the release."""

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.calculator import OmniCalc
from omnicalc.models.e2former.layers import envelope
from omnicalc.models.e2former.published_references import reference_table
from omnicalc.models.e2former.smooth import ONSET
from omnicalc.neighbors import neighbors
from omnicalc.registry import load_potential
from omnicalc.systems import Systems
from tests.command import omnicalc
from tests.golden.test_e2former_v2 import pytest_generate_tests  # noqa: F401 (one test per case)
from tests.published.files import published_config, write_published

pytest.importorskip("yaml", reason="published configs are YAML; pip install pyyaml")


def structure(case) -> Atoms:
    given = np.load(case / "input.npz")
    info = {"charge": int(given["charge"]), "spin": int(given["spin"])}
    return Atoms(given["numbers"], given["positions"], cell=given["cell"], pbc=given["pbc"], info=info)


@pytest.fixture
def imported(case, tmp_path, monkeypatch):
    """What the command line said."""
    monkeypatch.setenv("OMNICALC_HOME", str(tmp_path / "home"))
    file = write_published(tmp_path, case)
    return omnicalc("models", "import", file, "--config", tmp_path / "config.yaml", "--as", "ubio-s3:24m")


@pytest.mark.parametrize(
    "dtype, energy_tolerance, force_tolerance",
    [(torch.float64, 1e-9, 1e-9), (torch.float32, 2e-5, 1e-4)],
    ids=["float64", "float32"],
)
def test_energy_and_forces(case, imported, dtype, energy_tolerance, force_tolerance):
    wanted, head = np.load(case / "output.npz"), published_config(case)["head_name"]
    potential = load_potential("ubio-s3:24m", dtype=dtype, kernel="torch")
    systems = Systems.from_atoms(structure(case))
    result = potential(systems, neighbors(systems, potential.cutoff), head=head)
    references = result.energies.numpy() - wanted["atom_energy"]
    table = reference_table(head).energies
    assert references == pytest.approx([table[s] for s in structure(case).symbols], abs=energy_tolerance)
    assert np.abs(result.forces.numpy() - wanted["forces"]).max() < force_tolerance
    total = wanted["energy"] + sum(table[s] for s in structure(case).symbols)
    assert result.energy.item() == pytest.approx(total, abs=energy_tolerance)


def test_calculator(case, imported):
    """By name, as a user runs it."""
    atoms, wanted, head = structure(case), np.load(case / "output.npz"), published_config(case)["head_name"]
    atoms.calc = OmniCalc("ubio-s3:24m", head=head, device="cpu")
    assert np.abs(atoms.get_forces() - wanted["forces"]).max() < 1e-4


def test_smooth_is_the_same_where_nothing_is_cut(case, imported, tmp_path):
    """No atom at its cap and no neighbour near the end of the cutoff: the published energy and forces exactly."""
    head, config = published_config(case)["head_name"], load_potential("ubio-s3:24m").model.config
    if cut(case, config):
        pytest.skip("a cap cuts, or a neighbour is near the cutoff")
    omnicalc("models", "import", tmp_path / "model.pt", "--as", "ubio-s3:24m", "--smooth")
    systems, results = Systems.from_atoms(structure(case)), {}
    for tag in ("24m", "24m-smooth"):
        potential = load_potential(f"ubio-s3:{tag}", dtype="float64", kernel="torch")
        results[tag] = potential(systems, neighbors(systems, potential.cutoff), head=head)
    assert results["24m"].energy.item() == pytest.approx(results["24m-smooth"].energy.item(), abs=1e-9)
    assert (results["24m"].forces - results["24m-smooth"].forces).abs().max() < 1e-9


def cut(case, config) -> bool:
    systems, reach = Systems.from_atoms(structure(case)), [(config.cutoff, config.max_neighbors)]
    reach += [(config.long_upper, config.long_max_neighbors)] if config.long_layers else []
    for cutoff, cap in reach:
        found = neighbors(systems, cutoff)
        distances = found.vectors(systems.positions, systems.cell, systems.system).norm(dim=-1)
        if (found.mask.sum(1) >= cap).any() or (envelope(distances[found.mask], cutoff, "poly7") < ONSET).any():
            return True
    return False
