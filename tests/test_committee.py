"""A committee of last layers: what its spread is made of, where it is stored, and that nothing else changes."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc import OmniCalc, load_potential
from omnicalc.card import CARD, read_card, write_card
from omnicalc.committee import Calibration, _draws, fit_committee
from omnicalc.errors import InputError
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems
from omnicalc.training.replay import REPLAY
from tests.command import omnicalc
from tests.tiny_weights import write_weights


def frames(count=12):
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], info={"split": "valid" if k % 2 else "train"})
        atoms.positions += rng.normal(scale=0.05 * (1 + k % 4), size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-20.0, forces=rng.normal(scale=0.3, size=(3, 3)))
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("committee")
    card = write_weights(folder / "old")
    write_card(folder / "old" / CARD, replace(card, training={"replay": "sister"}))
    (folder / "sister").mkdir()
    (folder / "sister" / REPLAY).write_bytes(b"frames to replay")
    write(folder / "data.extxyz", frames())
    words = ("committee", folder / "old", folder / "data.extxyz", "--head", "water-theory", "--members", 4)
    assert "4 members, 6 training frames" in omnicalc(*words, "--out", folder / "new")
    return folder


def test_predictions_are_those_of_the_old_weights(files):
    atoms = frames(1)[0]
    old, new = (load_potential(str(files / n), device="cpu") for n in ("old", "new"))
    systems = Systems.from_atoms(atoms)
    found = neighbors(systems, old.cutoff)
    a, b = (p(systems, found, head="water-theory") for p in (old, new))
    assert torch.equal(a.forces, b.forces) and torch.equal(a.energy, b.energy)
    assert b.energy_std is None and b.forces_std is None  # not asked for
    with pytest.raises(InputError, match="holds no committee"):
        old.spread = True


def test_families_that_cannot_have_one_are_not_sent_to_make_one():
    with pytest.raises(InputError, match="only weights of the family e2former with forces by gradients can have one"):
        OmniCalc("allscaip", uncertainty=True, device="cpu")


def test_frames_to_replay_go_along_and_splits_are_needed(files, tmp_path):
    assert (files / "new" / REPLAY).read_bytes() == b"frames to replay"
    assert "replay" not in read_card(files / "new" / CARD).training  # it has them itself
    made = frames()
    for atoms in made:
        del atoms.info["split"]
    write(tmp_path / "data.extxyz", made)
    with pytest.raises(InputError, match="no frame of .* has the key split=train; a committee is drawn on"):
        omnicalc("committee", files / "old", tmp_path / "data.extxyz", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_spread_is_that_of_the_members_one_by_one(files):
    """Against networks whose last layers are really changed, one member at a time."""
    potential = load_potential(str(files / "new"), device="cpu", dtype="float64")
    atoms = frames(3)[2]
    systems = Systems.from_atoms(atoms)
    found = neighbors(systems, potential.cutoff)
    potential.spread = True
    asked = potential(systems, found, head="water-theory")
    potential.spread = False
    plain = potential(systems, found, head="water-theory")
    last = potential.model.energy_heads["water-theory"][-1]
    energies, forces = [], []
    for member in potential.model.committee[0]:
        kept = last.weight.clone(), last.bias.clone()
        last.weight += member[:-1]
        last.bias += member[-1]
        changed = potential(systems, found, head="water-theory")
        last.weight.copy_(kept[0])
        last.bias.copy_(kept[1])
        energies.append(changed.energy - plain.energy)
        forces.append(changed.forces - plain.forces)
    energy = torch.stack(energies).square().mean(0).sqrt()
    force = torch.stack(forces).square().sum(-1).mean(0).sqrt()
    assert torch.allclose(asked.energy_std, energy, rtol=1e-8) and energy.min() > 0
    assert torch.allclose(asked.forces_std, force, rtol=1e-8) and asked.forces_std.shape == (3,)
    assert torch.equal(asked.forces, plain.forces)


def test_calculator_results(files):
    atoms = frames(1)[0]
    atoms.calc = OmniCalc(files / "new", uncertainty=True)
    atoms.get_forces()
    assert atoms.calc.results["energy_std"] > 0 and atoms.calc.results["forces_std"].shape == (3,)
    atoms.calc = OmniCalc(files / "new")
    atoms.get_forces()
    assert "forces_std" not in atoms.calc.results


def test_results_are_known_to_the_tools_of_ase(files, tmp_path):
    atoms = frames(1)[0]
    calc = atoms.calc = OmniCalc(files / "new", uncertainty=True)
    found = atoms.get_properties(["energy", "forces_std"])
    assert found["energy_std"] == calc.results["energy_std"] and found["forces_std"].shape == (3,)
    assert set(calc.results) < set(calc.export_properties())
    assert calc.get_property("energy_std", atoms) == found["energy_std"]
    kept = SinglePointCalculator(atoms, **calc.results)
    assert np.array_equal(kept.get_property("forces_std"), found["forces_std"])
    for name in ("a.traj", "a.extxyz"):
        write(tmp_path / name, atoms)
        assert read(tmp_path / name).calc.results["forces_std"] == pytest.approx(found["forces_std"], abs=1e-8)
    with pytest.raises(PropertyNotImplementedError):
        OmniCalc(files / "new").get_property("energy_std", atoms)


def test_known_to_a_file_format_that_was_imported_before():
    """Its lists of results are made once: without these names it leaves them out of every file, and says nothing."""
    code = (
        "from ase.io import extxyz; import omnicalc.calculator; "
        "print('energy_std' in extxyz.per_config_properties, 'forces_std' in extxyz.per_atom_properties)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]


def test_a_head_without_a_committee_knows_no_spread(files, tmp_path):
    """Not one of zero."""
    said = "head 'salt-theory' of .* has no committee, .* heads with one: water-theory; take one of them"
    with pytest.raises(InputError, match=said):
        OmniCalc(files / "new", head="salt-theory", uncertainty=True)
    salt = Atoms("NaCl", [[0, 0, 0], [2.4, 0, 0]])
    with pytest.raises(InputError, match=said):  # the head that this structure chooses
        OmniCalc(files / "new", uncertainty=True).get_potential_energy(salt)
    potential = load_potential(files / "new", device="cpu")
    potential.spread = True
    systems = Systems.from_atoms(frames(1)[0])
    with pytest.raises(InputError, match=said):
        potential(systems, neighbors(systems, potential.cutoff), head="salt-theory")
    write(tmp_path / "water.xyz", frames(1)[0])
    words = ("--model", files / "new", "--head", "salt-theory", "--no-pbc", "--guard", "uncertainty=stop:1")
    with pytest.raises(InputError, match=said):
        omnicalc("md", tmp_path / "water.xyz", *words, "--steps", 3, "--out", tmp_path / "a")
    told = omnicalc("evaluate", files / "new", files / "data.extxyz", "--head", "salt-theory", "--json")
    assert "committee" not in json.loads(told)


def test_the_spread_stays_with_its_calculator_and_with_torch(files):
    potential, atoms = load_potential(files / "new", device="cpu"), frames(1)[0]
    plain, asked = OmniCalc(potential), OmniCalc(potential, uncertainty=True)
    for calc in (plain, asked):
        calc.get_forces(atoms)
    assert "forces_std" in asked.results and "forces_std" not in plain.results and not potential.spread
    told = [p.kernel.describe(p, torch.tensor([1, 8])) for p in (plain.potential, asked.potential)]
    assert told[0].startswith("native") and told[1] == "torch (the spread of a committee needs plain torch)"
    with pytest.raises(InputError, match="kernel 'native' cannot run .* needs plain torch; use kernel 'auto' or"):
        OmniCalc(files / "new", kernel="native", uncertainty=True).get_forces(atoms)


def test_frames_that_cannot_set_a_committee(files, tmp_path):
    """Named before anything long is done: elements that the head does not know, labels that are its own."""
    made = frames()
    made[4].symbols[1] = "C"
    write(tmp_path / "data.extxyz", made)
    words = ("committee", files / "old", tmp_path / "data.extxyz", "--out", tmp_path / "new", "--members", 4)
    with pytest.raises(InputError, match="^frame 2 of those with split=train in .*data.extxyz': .*element C"):
        omnicalc(*words)
    calc = OmniCalc(files / "old", dtype="float64")
    for atoms in (made := frames()):
        energy, forces = calc.get_potential_energy(atoms), calc.get_forces(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    write(tmp_path / "data.extxyz", made)
    with pytest.raises(InputError, match="differ by less than 0.001 meV from those of .*: they look like its own"):
        omnicalc(*words)
    assert not (tmp_path / "new").exists()


def test_draws_where_the_data_know_some_directions_far_better():
    """As tiny errors of energies do; the root of the inverse, the wrong variant, does not exist there."""
    rng = torch.Generator().manual_seed(0)
    g = torch.randn(8, 60, generator=rng, dtype=torch.float64)
    precision = 1e14 * g.T @ g
    with pytest.raises(RuntimeError, match="could not be completed"):
        torch.linalg.cholesky(torch.linalg.inv(precision + 4 * torch.eye(60, dtype=torch.float64)))
    draws = _draws(precision, 4.0, 500, rng)
    assert (draws @ g.T).abs().max() < 1e-5
    assert draws.square().sum(1).mean() == pytest.approx(52 / 4, rel=0.05)


def test_a_seed_gives_one_committee_whatever_axes_a_lapack_returns(monkeypatch):
    """Eigenvectors are unique to a sign, in a plane of equal eigenvalues not even to that."""
    rng = torch.Generator().manual_seed(0)
    g = torch.randn(6, 6, generator=rng, dtype=torch.float64)
    basis = torch.linalg.qr(g).Q
    precision = basis @ torch.diag(torch.tensor([1.0, 1.0, 3.0, 5.0, 8.0, 9.0], dtype=torch.float64)) @ basis.T
    plain = torch.linalg.eigh

    def other(matrix):
        stiffness, axes = plain(matrix)
        axes = axes * torch.tensor([1, 1, -1, 1, -1, 1])
        turned = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
        return stiffness, torch.cat([axes[:, :2] @ turned, axes[:, 2:]], 1)

    def drawn():
        return _draws(precision, 2.0, 4, torch.Generator().manual_seed(1))

    def wrong():  # along the axes as they come
        stiffness, axes = torch.linalg.eigh(precision)
        normal = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return normal / (stiffness + 2.0).sqrt() @ axes.T

    before = drawn(), wrong()
    monkeypatch.setattr(torch.linalg, "eigh", other)
    assert torch.allclose(drawn(), before[0], atol=1e-12) and not torch.allclose(wrong(), before[1], atol=0.1)
    many = _draws(precision, 2.0, 20_000, rng)
    inverse = torch.linalg.inv(precision + 2 * torch.eye(6, dtype=torch.float64))
    assert torch.allclose(many.T @ many / len(many), inverse, atol=0.01)


def test_scale_is_set_on_one_half_of_the_validation_frames(files):
    potential = load_potential(str(files / "old"), device="cpu", dtype="float64")
    parts = [[a for a in read(files / "data.extxyz", ":") if a.info["split"] == s] for s in ("train", "valid")]
    draws, calibration = fit_committee(potential, "water-theory", *parts, members=4)
    assert len(calibration.spread) == 3 * 3  # the other half
    again, _ = fit_committee(potential, "water-theory", *parts, members=4)
    assert torch.equal(draws, again)
    doubled = [atoms for atoms in parts[1] for _ in range(2)]  # both halves the same: the sizes agree as they were set
    _, same = fit_committee(potential, "water-theory", parts[0], doubled, members=4)
    assert np.mean(same.spread**2) == pytest.approx(np.mean(same.error**2), rel=1e-6)
    with pytest.raises(InputError, match="needs at least 3"):
        fit_committee(potential, "water-theory", *parts, members=2)


def test_calibration_numbers():
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=4000))
    error = np.linalg.norm(rng.normal(size=(4000, 3)), axis=1) * spread / np.sqrt(3)
    right = Calibration(spread, error).to_dict()
    assert right["calibration_error"] < 0.06 and right["within"] == pytest.approx(0.61, abs=0.03)
    assert Calibration(spread, 2 * error).to_dict()["calibration_error"] == pytest.approx(1.0, abs=0.1)
    assert abs(Calibration(spread, rng.permutation(error)).to_dict()["rank_correlation"]) < 0.1
    assert right["rank_correlation"] > 0.7


def test_evaluate_says_how_sure_the_weights_are(files):
    """Means over the frames as the calculator gives them one by one; weights without a committee say nothing."""
    words = ("evaluate", files / "new", files / "data.extxyz", "--split", "valid", "--dtype", "float64")
    told = json.loads(omnicalc(*words, "--head", "water-theory", "--json"))["committee"]
    calc = OmniCalc(files / "new", head="water-theory", dtype="float64", uncertainty=True)
    energies, forces = [], []
    for atoms in frames():
        if atoms.info["split"] == "valid":
            calc.get_forces(atoms)
            energies.append(1e3 * calc.results["energy_std"] / 3)
            forces.append(1e3 * calc.results["forces_std"])
    assert told["energy_std"] == pytest.approx(np.mean(energies), rel=1e-6)
    assert told["forces_std"] == pytest.approx(np.mean(forces), rel=1e-6) and told["atoms"] == 6 * 3
    error = f"calibration error {100 * told['calibration_error']:.0f} %"
    assert error in omnicalc(*words, "--head", "water-theory")
    old = ("evaluate", files / "old", *words[2:])
    assert "committee" not in json.loads(omnicalc(*old, "--head", "water-theory", "--json"))
    assert "energy_std" not in omnicalc(*old, "--head", "water-theory")


def test_the_guard_of_a_run_reads_the_spread(files, tmp_path):
    """Asked for, it stops a run whose members disagree more than is allowed; otherwise the committee is not asked."""
    from omnicalc.errors import RunError

    atoms = frames(1)[0]
    write(tmp_path / "water.xyz", atoms)
    words = ("md", tmp_path / "water.xyz", "--model", files / "new", "--steps", 3, "--no-pbc")
    with pytest.raises((InputError, RunError), match="the committee disagrees on the force on"):
        omnicalc(*words, "--guard", "uncertainty=stop:1e-9", "--out", tmp_path / "a")
    omnicalc(*words, "--guard", "uncertainty=stop:1e9", "--out", tmp_path / "b")
