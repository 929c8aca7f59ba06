"""What surrounds the network: heads, scales, adapter, options, memory, calculator and command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write

import omnicalc as package
from omnicalc import OmniCalc, OmnimolCalculator, load_potential
from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.models.cube_rotations import rotation_set
from omnicalc.models.omnimol import memory
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.command import omnicalc
from tests.tiny_weights import write_weights

HEADS = {"a": ("H", "C", "O"), "b": ("H", "C", "O")}
TINY = {"size": "tiny", "layers": 1, "width": 16, "attention_heads": 2}


def potential(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("omnimol", {"heads": ["a", "b"], **TINY, **settings}).double().eval()
    return Potential(model, [Head(name, dict.fromkeys((1, 6, 8), 0.0)) for name in "ab"])


def predict(of: Potential, atoms, head="a", **settings):
    systems = Systems.from_atoms(atoms, **settings)
    return of(systems, neighbors(systems, of.cutoff), head=head)


@pytest.fixture
def folders(tmp_path):
    for name, settings in (("cons", {}), ("direct", {"forces": "direct"})):
        write_weights(tmp_path / name, name=name, heads=HEADS, family="omnimol", settings=TINY | settings,
                      charges=(-1, 0, 1), spins=(1, 2))  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_every_head_has_its_own_output(forces):
    of, atoms = potential(forces=forces), molecule("CH3OH")
    a, b = predict(of, atoms, "a"), predict(of, atoms, "b")
    assert abs(a.energy - b.energy).item() > 1e-4 and (a.forces - b.forces).abs().max() > 1e-4
    systems = Systems.from_atoms([atoms, atoms])
    both = of(systems, neighbors(systems, 1.0), head=torch.tensor([0, 1]))
    assert torch.allclose(both.energy, torch.cat([a.energy, b.energy])) and torch.allclose(both.forces[6:], b.forces)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_scales_and_shift(forces):
    """E = mu + sigma sum e_i: the shift belongs to the molecule, whatever its size."""
    atoms = [molecule("CH3OH"), molecule("H2O")]
    plain = predict(potential(forces=forces), atoms)
    scaled = predict(potential(forces=forces, energy_scale=3.0, energy_shift=-7.0, force_scale=2.0), atoms)
    assert torch.allclose(scaled.energy, 3 * plain.energy - 7)
    assert torch.allclose(scaled.forces, (3 if forces == "gradient" else 2) * plain.forces)


def test_the_adapter_starts_as_nothing_and_learns():
    atoms = molecule("CH3OH")
    plain, adapted = potential(), potential(adapter=True)
    adapted.model.load_state_dict(plain.model.state_dict(), strict=False)
    assert torch.equal(predict(plain, atoms).energy, predict(adapted, atoms).energy)
    systems = Systems.from_atoms(atoms)
    adapted(systems, neighbors(systems, 1.0), head="a", create_graph=True).energy.sum().backward()
    assert adapted.model.body.adapter.mlp.fc2.weight.grad.abs().max() > 0


def test_rotation_sets_are_groups():
    for n in (1, 4, 12, 24):
        turns = rotation_set(n, torch.float64, torch.device("cpu"))
        assert torch.allclose(torch.linalg.det(turns), torch.ones(n, dtype=torch.float64))
        keys = {tuple(t.flatten().tolist()) for t in turns + 0.0}
        products = torch.einsum("aij,bjk->abik", turns, turns).flatten(0, 1) + 0.0
        assert len(keys) == n and {tuple(p.flatten().tolist()) for p in products} == keys


def test_more_neighbours_than_allowed():
    with pytest.raises(InputError, match="has 5 neighbours within 4.5 Å, but these weights allow 4"):
        predict(potential(max_neighbors=4), molecule("CH3OH"))
    predict(potential(max_neighbors=5), molecule("CH3OH"))


def test_a_molecule_too_large_for_the_memory_is_refused_before_it_is_tried(monkeypatch):
    of = potential()
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**29)
    chain = molecule("C2H6").repeat((1, 1, 1))
    atoms = chain.copy()
    for k in range(1, 400):
        atoms += _moved(chain, 5.0 * k)
    with pytest.raises(InputError, match=r"a molecule of 3200 atoms would need about .* GiB .*about \d+ atoms in one"):
        of.choose_head(Systems.from_atoms(atoms))
    fits = int(str(_refusal(of, atoms)).split("about ")[2].split()[0])
    assert 500 < fits < 3200
    of.choose_head(Systems.from_atoms(atoms[:fits]))
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**40)
    of.choose_head(Systems.from_atoms(atoms))


def _moved(atoms, distance):
    atoms = atoms.copy()
    atoms.positions[:, 0] += distance
    return atoms


def _refusal(of, atoms):
    with pytest.raises(InputError) as caught:
        of.choose_head(Systems.from_atoms(atoms))
    return caught.value


def test_the_forecast_grows_as_the_square():
    config = potential().model.config
    one, two = (memory.forecast(config, 1, n, 4, True) for n in (4000, 8000))
    assert 3.5 < two / one < 4.1
    direct = replace(config, forces="direct", positions=True, angles="none")
    assert memory.forecast(direct, 1, 4000, 4, False) < one


def test_gradient_forces_that_depend_on_the_orientation_can_be_averaged():
    """Conservative weights that see positions: the average over the cube does not change when the cube is turned."""
    model, atoms = potential(positions=True, angles="none"), molecule("CH3OH")
    turned = atoms.copy()
    turned.rotate(90, "z", center=(0, 0, 0))
    assert abs(predict(model, atoms).energy - predict(model, turned).energy) > 1e-6
    model.model.set_options(rotations=24)
    assert abs(predict(model, atoms).energy - predict(model, turned).energy) < 1e-9
    with pytest.raises(InputError, match="remove_torque: options of direct forces; .* take rotations alone"):
        model.model.set_options(rotations=24, remove_torque=True)


class TestCalculator:
    def test_options_of_direct_forces(self, folders):
        atoms = molecule("CH3OH")
        atoms.calc = OmnimolCalculator(folders / "direct", dtype="float64")
        assert np.abs(atoms.get_forces().sum(0)).max() < 1e-12
        atoms.calc = calc = OmnimolCalculator(
            folders / "direct", dtype="float64", remove_net_force=False, remove_torque=False, rotations=24
        )
        assert np.abs(atoms.get_forces().sum(0)).max() > 1e-6 and calc.parameters["rotations"] == 24
        energy = atoms.get_potential_energy()
        atoms.rotate(90, "z")
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        with pytest.raises(InputError, match="rotations = 7 is not supported"):
            OmnimolCalculator(folders / "direct", rotations=7)

    def test_refusals(self, folders):
        with pytest.raises(InputError, match="these weights are conservative"):
            OmnimolCalculator(folders / "cons", remove_torque=True)
        with pytest.raises(InputError, match="rotations: .* and their energy does not depend on the orientation"):
            OmnimolCalculator(folders / "cons", rotations=24)
        write_weights(folders / "other")
        with pytest.raises(InputError, match="takes weights of the family 'omnimol'"):
            OmnimolCalculator(folders / "other")
        atoms = molecule("H2O", cell=[8, 8, 8], pbc=[True, False, False])
        with pytest.raises(InputError, match="take the periodicity off"):
            OmniCalc(folders / "cons").get_potential_energy(atoms)

    def test_charge_and_spin_outside_the_weights(self, folders):
        calc = OmniCalc(folders / "cons")
        assert calc.get_potential_energy(molecule("H2O")) != OmniCalc(folders / "cons", charge=1).get_potential_energy(
            molecule("H2O")
        )
        with pytest.raises(InputError, match="total charge 2"):
            OmniCalc(folders / "cons", charge=2).get_potential_energy(molecule("H2O"))
        with pytest.raises(InputError, match="total spin 3"):
            OmniCalc(folders / "cons", spin=3).get_potential_energy(molecule("H2O"))

    def test_exported_lazily(self):
        assert "OmnimolCalculator" in package.__all__


class TestCommandLine:
    def test_sp(self, folders, monkeypatch):
        monkeypatch.chdir(folders)
        write("m.xyz", molecule("CH3OH"))
        found = json.loads(omnicalc("sp", "m.xyz", "--model", "./cons", "--json"))
        expected = predict(load_potential(folders / "cons"), molecule("CH3OH"))
        assert found["energy_eV"] == pytest.approx(expected.energy.item(), abs=1e-5)
        write("box.xyz", molecule("H2O", cell=[9, 9, 9], pbc=True))
        with pytest.raises(InputError, match="--no-pbc"):
            omnicalc("sp", "box.xyz", "--model", "./cons")
        omnicalc("sp", "box.xyz", "--model", "./cons", "--no-pbc")

    def test_card(self, folders):
        assert "cutoff    none, molecules only" in omnicalc("models", "show", folders / "cons")

    def test_md(self, folders, monkeypatch):
        """Conservative runs say nothing; direct forces in nve are warned of; a box is refused before any file."""
        monkeypatch.chdir(folders)
        write("m.xyz", molecule("CH3OH"))
        words = "md", "m.xyz", "--no-pbc", "--steps", "20", "--interval", "10", "--ensemble", "nve", "--seed", "1"
        assert "not the gradient" not in omnicalc(*words, "--model", "./cons", "--out", "one")
        assert "not the gradient of its energy" in omnicalc(*words, "--model", "./direct", "--out", "two")
        assert not json.loads((folders / "two" / "run.json").read_text())["model"]["conservative"]
        write("box.xyz", molecule("H2O", cell=[9, 9, 9], pbc=True))
        with pytest.raises(InputError, match="periodic"):
            omnicalc("md", "box.xyz", "--steps", "5", "--model", "./cons", "--out", "three")
        assert not (folders / "three").exists()
