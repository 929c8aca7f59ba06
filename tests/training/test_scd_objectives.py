"""Pretraining and fine-tuning by the trainer: resumable to the bit, unlabelled data, backbones, heads, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from omnicalc import embed, load_potential, properties
from omnicalc.calculator import OmniCalc
from omnicalc.card import CARD, read_card
from omnicalc.errors import InputError
from omnicalc.files import sha256_of
from omnicalc.model_text import use_of
from omnicalc.training.example import collate
from omnicalc.training.export import export
from omnicalc.training.objectives.with_denoising import WithDenoising
from omnicalc.training.recipe import read_recipe
from omnicalc.training.trainer import Trainer
from tests.training.toy import water

SCD = 'family = "scd"\n[model]\nchannels = 16\nlayers = 1\nattention_heads = 4\nn_basis = 8\ncutoff = 4.0\n'
E2FORMER = """family = "denoiser"
[model]
backbone = "e2former"
[model.settings]
elements = [1, 6, 8]
channels = 16
l_max = 1
layers = 1
values = ["first-order"]
n_basis = 6
radial_width = 8
"""
RECIPE = """
name = "toy"
tag = "test"
version = "0.1"
summary = "a toy"
licence = "MIT"
reference_note = "none"
{start}
{model}
[objective]
{objective}
[optimiser]
ema = 0.9
weight_decay = 0.05
clip_norm = 1.0
validate_every = 20
checkpoint_every = 10
[batch]
structures = 6
[[stages]]
steps = {steps}
warmup = 5
learning_rate = 0.01
[[data]]
head = "{head}"
level_of_theory = "a toy"
file = "frames.extxyz"
sha256 = "{sha}"
{data}
"""
PRETRAIN = 'name = "self-conditioned-denoising"'
ENERGIES = {"objective": 'name = "energy-forces"'}
UNLABELLED = "energies = false\nforces = false"


def geometries(folder: Path, labelled: bool = False) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for k in range(30):
        if labelled:
            atoms = water(rng)
        else:
            atoms = molecule(["CH3CH2OH", "H2O", "CH4"][k % 3]) if k % 5 else bulk("MgO", "rocksalt", a=4.2)
            atoms = atoms if "Mg" not in atoms.get_chemical_formula() else Atoms("CO", cell=[3, 3, 3], pbc=True)
            if atoms.pbc.any():
                atoms.positions[1] = [0, 0, 1.13]
            atoms.rattle(0.02, seed=k)
        atoms.info["split"] = "train" if k % 4 else "valid"
        frames.append(atoms)
    write(folder / "frames.extxyz", frames)


def trainer(
    folder: Path, out: str = "out", *, model=SCD, objective=PRETRAIN, steps=40, head="none", data=UNLABELLED, start=""
) -> Trainer:
    text = RECIPE.format(
        model=model, objective=objective, steps=steps, head=head, data=data, start=start,
        sha=sha256_of(folder / "frames.extxyz"),
    )  # fmt: skip
    (folder / f"{out}.toml").write_text(text)
    return Trainer(read_recipe(folder / f"{out}.toml"), folder, folder / out, report=lambda line: None)


def trained(work: Trainer) -> Path:
    work.prepare(resume=False)
    work.run()
    export(work, work.out / "weights")
    return work.out / "weights"


@pytest.mark.parametrize("model", [SCD + 'gives = "embeddings"\n', E2FORMER], ids=["scd", "e2former"])
def test_pretraining_on_geometries_alone(tmp_path, model):
    """Molecules and crystals without labels; frozen tables, decaying matrices, an export that embeds and refuses."""
    geometries(tmp_path)
    work = trainer(tmp_path, model=model, steps=4)
    folder = trained(work)
    assert np.isfinite(float(work.log.read()[-1]["denoising_rmse"]))
    frozen = [n for n, p in work.model.named_parameters() if not p.requires_grad]
    assert frozen and all(n not in work.adam.names for n in frozen)
    assert not any(n.endswith(".bias") or "norm" in n for n in work.adam.decaying) and work.adam.decaying
    potential = load_potential(folder)
    assert potential.model.noise_normalizer.acc_count > 0  # exported with the weights
    assert embed(molecule("H2O"), potential).shape == (1, 16)
    assert use_of(read_card(folder / CARD), "a b") == "omnicalc embed STRUCTURES --out FOLDER --model 'a b'"
    with pytest.raises(InputError, match="no energies|pretrained only"):
        OmniCalc(potential).get_potential_energy(molecule("H2O"))


def test_labels_that_are_not_learned_leave_no_reference_energies(tmp_path):
    geometries(tmp_path, labelled=True)
    work = trainer(tmp_path, model=SCD + 'gives = "embeddings"\n', steps=1)
    head = read_card(trained(work) / "card.toml").heads[0]
    assert set(head.reference.values()) == {0.0} and head.data.endswith("structures only")


def test_pretraining_resumes_to_the_bit(tmp_path):
    """Noise, supercells, dropped conditions and paths and the normaliser included."""
    geometries(tmp_path)
    whole = trainer(tmp_path, "whole", steps=6)
    whole.prepare(resume=False)
    before = torch.get_rng_state()
    whole.run()
    assert torch.equal(torch.get_rng_state(), before)
    first = trainer(tmp_path, "parts", steps=6)
    first.prepare(resume=False)
    first.run(3)
    torch.rand(7)
    second = trainer(tmp_path, "parts", steps=6)
    second.prepare(resume=True)
    second.run()
    for name, tensor in whole.averaged.items():
        assert torch.equal(tensor, second.averaged[name]), name
    other = trainer(tmp_path, "other", steps=6, objective=PRETRAIN + "\nself_conditioned = false")
    other.prepare(resume=False)
    other.run()
    assert any(not torch.equal(t, other.averaged[n]) for n, t in whole.averaged.items())  # the wrong variant


def test_processes_keep_one_count_of_the_noise(tmp_path):
    """Of two, where the other one finds the same as this one: targets are normalised alike in all of them."""
    geometries(tmp_path, labelled=True)
    work = trainer(tmp_path, steps=3)
    work.processes.count, work.processes.add = 2, lambda tensors: [2 * t for t in tensors]
    work.prepare(resume=False)
    work.run()
    normaliser = work.model.noise_normalizer
    assert normaliser.num_accumulations.item() == 6 and normaliser.acc_count.item() == 3 * 18  # six waters a step


def test_fine_tuning_to_energies_and_forces(tmp_path, steps=4, factor=1.5):
    """From pretrained weights, with denoising beside; the result is a potential whose forces are exact."""
    geometries(tmp_path, labelled=True)
    start = trained(trainer(tmp_path, "pre", model=SCD + 'gives = "embeddings"\n', steps=2))
    objective = 'name = "energy-forces-denoising"\nfirst_drop_path = 0.1'
    work = trainer(
        tmp_path, "fine", model=SCD + "mean = 0.5\nstd = 2.0\n", objective=objective, steps=steps, head="toy", data="",
        start=f'start = "{start}"',
    )  # fmt: skip
    assert "tensors copied" in work.start_report
    assert (float(work.model.mean), float(work.model.std)) == (0.5, 2.0)  # not those of the pretrained weights
    pretrained = load_potential(start).model.rep_model.attention_layers[0].q_proj.weight
    assert torch.equal(work.model.rep_model.attention_layers[0].q_proj.weight, pretrained)
    folder = trained(work)
    rows = [float(r["force_mae"]) for r in work.log.read()]
    assert rows[-1] < factor * rows[0]
    potential = load_potential(folder, dtype="float64")
    assert potential.conservative
    atoms = water(np.random.default_rng(5))
    atoms.calc = OmniCalc(potential)
    forces, step, energies = atoms.get_forces(), 1e-4, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 0] += sign * step
        moved.calc = OmniCalc(potential)
        energies.append(moved.get_potential_energy())
    assert (energies[1] - energies[0]) / (2 * step) == pytest.approx(forces[1, 0], abs=1e-5)


def test_fine_tuning_normalises_its_own_noise(tmp_path, monkeypatch):
    """Not by the larger noise of a pretraining, which leaves little of its loss; a pretraining that goes on does."""
    geometries(tmp_path, labelled=True)
    start = trained(trainer(tmp_path, "pre", model=SCD, steps=2))
    noise = load_potential(start).model.noise_normalizer
    assert noise.std.mean() == pytest.approx(0.04 * (2 / 3) ** 0.5, rel=0.1)  # of waters without their mean
    begun = {"start": f'start = "{start}"', "steps": 4}
    more = trainer(tmp_path, "more", model=SCD, **begun)
    assert torch.equal(more.model.noise_normalizer.acc_count, noise.acc_count)
    weight = 'name = "energy-forces-denoising"\ndenoising_weight = '
    none = trainer(tmp_path, "none", objective=weight + "0.0", data="", **begun)
    assert torch.equal(none.model.noise_normalizer.acc_count, noise.acc_count)
    property_of = {"model": SCD + 'gives = "properties"\n', "data": "forces = false", **begun}
    size = trainer(tmp_path, "size", objective='name = "property"\ndenoising_weight = 0.1', **property_of)
    assert not size.model.noise_normalizer.acc_count.any()

    fine = trainer(tmp_path, "fine", objective=weight + "0.1", data="", **begun)
    found = load_potential(trained(fine)).model.noise_normalizer
    assert found.std.mean() == pytest.approx(0.005 * (2 / 3) ** 0.5, rel=0.3)
    again = trainer(tmp_path, "fine", objective=weight + "0.1", data="", **begun)
    again.prepare(resume=True)
    assert torch.equal(again.model.noise_normalizer.acc_count, found.acc_count)

    monkeypatch.delattr(WithDenoising, "begin")  # the wrong variant
    wrong = trainer(tmp_path, "wrong", objective=weight + "0.1", data="", **begun)
    trained(wrong)
    assert wrong.model.noise_normalizer.std.mean() > 0.01


@pytest.mark.slow
def test_what_is_trained_learns(tmp_path):
    """With steps enough to see errors fall: of noise and forces on held-out structures, of the property in training."""
    for name, model in (("scd", SCD), ("e2former", E2FORMER)):
        folder = tmp_path / name
        folder.mkdir()
        geometries(folder)
        work = trainer(folder, model=model, steps=200)
        trained(work)
        assert float(work.log.read()[-1]["denoising_rmse"]) < 0.97, name
    for name, test in (("forces", test_fine_tuning_to_energies_and_forces), ("size", test_fine_tuning_to_a_property)):
        (tmp_path / name).mkdir()
        test(tmp_path / name, steps=150, factor=0.6)


def test_fine_tuning_to_a_property(tmp_path, steps=4, factor=1.5):
    geometries(tmp_path)
    frames = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH4", "CH3OH", "C2H4", "H2CO") * 4]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
        size = np.linalg.norm(atoms.positions - atoms.positions.mean(0), axis=1).mean()
        atoms.calc = SinglePointCalculator(atoms, energy=float(size))
        atoms.info = {"split": "train" if k % 5 else "valid"}
    write(tmp_path / "frames.extxyz", frames)
    model = SCD + 'gives = "properties"\nenergy_pool = "mean"\n'
    with pytest.raises(InputError, match="taken for energies"):
        trainer(tmp_path, "energy", model=SCD, head="size", data="forces = false", objective='name = "property"')
    work = trainer(
        tmp_path, "size", model=model, steps=steps, head="size", data="forces = false",
        objective='name = "property"\nscale = 0.5\ndenoising_weight = 0.1',
    )  # fmt: skip
    folder = trained(work)
    rows = [float(r["property_mae"]) for r in work.log.read()]
    valid = [a for a in frames if a.info["split"] == "valid"]
    wanted = np.array([a.get_potential_energy() for a in valid])
    found = properties(valid, folder, head="size")
    assert use_of(read_card(folder / CARD), "w") == 'omnicalc.properties(structures, "w", head="size") in Python'
    assert np.abs(found - wanted).mean() == pytest.approx(rows[-1], rel=1e-3)
    losses = [float(r["train_property"]) for r in work.log.read()]
    assert np.mean(losses[len(losses) // 2 :]) < factor * losses[0]


def test_a_denoised_backbone_begins_a_potential(tmp_path):
    """The tensors of the E2Former inside a denoiser are taken by their own names; its energy head begins at random."""
    geometries(tmp_path, labelled=True)
    start = trained(trainer(tmp_path, "pre", model=E2FORMER, steps=2))
    model = E2FORMER.replace('family = "denoiser"\n[model]\nbackbone = "e2former"\n[model.settings]', "").strip()
    model = 'family = "e2former"\n[model]\n' + model
    work = trainer(
        tmp_path, "fine", model=model, objective='name = "energy-forces"', steps=5, head="toy", data="",
        start=f'start = "{start}"',
    )  # fmt: skip
    pre = load_potential(start).model.backbone.state_dict()
    mine = work.model.state_dict()
    same = [n for n in mine if n in pre and torch.equal(mine[n], pre[n].to(mine[n].dtype))]
    assert "blocks.0.attention.query.first.weight" in same or len(same) > 0.7 * len(mine)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"objective": 'name = "self-conditioned-denoising"\nnoise = 1'}, "unknown keys"),
        ({"objective": PRETRAIN + "\ncorrupt_noise = 0.0"}, "corrupt_noise"),
        ({"objective": PRETRAIN + "\nmost_atoms = 0"}, "most_atoms = 0"),
        ({"objective": 'name = "denoise"'}, "unknown objective"),
        ({"model": SCD + 'gives = "embeddings"\n', "data": "", **ENERGIES}, "pretrained only"),
        ({"model": SCD + 'gives = "properties"\n', "data": "", **ENERGIES}, "no energies"),
        ({"model": SCD + 'backbone = "cgt"\n', "data": "", **ENERGIES}, "CGT"),
        ({"objective": 'name = "energy-forces"'}, "neither energies nor forces"),
        ({"model": 'family = "e2former"\n[model]\nelements = [1, 6, 8]\n'}, "denoiser"),
    ],
)
def test_refusals(tmp_path, change, message):
    geometries(tmp_path)
    with pytest.raises(InputError, match=message):
        trainer(tmp_path, **change)


def complexes(path: Path, count: int = 12, residue: bool = True) -> Path:
    """Made-up complexes of six residues and a ligand near the third, as `omnicalc data split` writes them of LBA."""
    rng, frames = np.random.default_rng(3), []
    for k in range(count):
        parts = [molecule("H2O") for _ in range(6)] + [molecule("CH3OH")]
        for n, part in enumerate(parts):
            part.positions += [3.0 * n, 0, 0] if n < 6 else [6.0, 3.0, 0]
            part.rattle(0.05, rng=rng)
        atoms = sum(parts[1:], parts[0])
        if residue:
            atoms.arrays["residue"] = np.array([n if n < 6 else -1 for n, part in enumerate(parts) for _ in part])
        atoms.info = {"molecule": f"c{k}", "split": "train" if k % 4 else "valid"}
        frames.append(atoms)
    write(path, frames)
    return path


@pytest.mark.parametrize("kind", ["pocket", "ligand", "mixed"])
def test_pockets_of_complexes(tmp_path, kind):
    """Each variant learns from the frames' residues: what is denoised has its size, and its own validation error."""
    complexes(tmp_path / "frames.extxyz")
    denoising = f'name = "self-conditioned-denoising"\npockets = "{kind}"\nresidues = 2\nshift = 0.0'
    work = trainer(tmp_path, model=SCD + 'gives = "embeddings"\n', objective=denoising, steps=4)
    work.prepare(resume=False)
    work.run()
    assert work.step == 4 and work.best is not None and np.isfinite(work.best)
    batch = collate([work.dataset.example(0, e) for e in work.dataset.sources[0].valid], work.dataset.cutoff)
    counts = work.objective.errors(work.model.eval(), batch)["denoising_mse"][1]
    sizes = {"pocket": {6}, "ligand": {6}, "mixed": {6, 12}}[kind]  # methanol; two waters; with or without methanol
    assert {int(c) // 3 for c in counts} <= sizes


def test_pockets_need_residues(tmp_path):
    complexes(tmp_path / "frames.extxyz", residue=False)
    with pytest.raises(InputError, match="frame 1 of .* has no per-atom column residue"):
        trainer(tmp_path, objective='name = "self-conditioned-denoising"\npockets = "pocket"')
    for words, message in (
        ('pockets = "both"', "one of none, pocket, ligand, mixed is needed"),
        ("residues = 0", "residues = 0"),
        ("shift = -1.0", "shift = -1.0"),
        ('pockets = "ligand"\nself_conditioned = false', "needs self_conditioned = true"),
    ):
        with pytest.raises(InputError, match=message):
            trainer(tmp_path, objective=f'name = "self-conditioned-denoising"\n{words}')
