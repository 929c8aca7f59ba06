"""A committee of last layers: what its spread is made of, where it is stored, and that nothing else changes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc import OmniCalc, load_potential
from omnicalc.card import CARD, read_card, write_card
from omnicalc.committee import Calibration, fit_committee
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
