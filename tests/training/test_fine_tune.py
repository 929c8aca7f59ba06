"""Fine-tuning in one line: new heads, replay, frozen trunks, LoRA, and labels of another level of theory."""

import gc
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from safetensors.torch import load_file

from omnicalc import load_potential
from omnicalc.card import read_card, write_card
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError, WeightsError
from omnicalc.evaluation import evaluate
from omnicalc.registry import BUNDLED, folder_name, list_models, resolve
from omnicalc.systems import Systems
from omnicalc.training import fine_tune
from omnicalc.training.fine_tune import FineTune, fine_tune_recipe
from omnicalc.training.replay import REPLAY, replay_of
from omnicalc.training.trainer import Trainer
from tests.command import omnicalc
from tests.training.toy import recipe_in, trainer, water, write_frames


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of the toy with frames to replay, and 20 frames of two waters whose zero of energy is another."""
    folder = tmp_path_factory.mktemp("tune")
    write_frames(folder, 40, sizes=(1, 2))
    forces_first = "energy_weight = 0.3\nenergy_weight_late = 3.0"
    work = trainer(folder, "old", steps=80, every=80, stage=forces_first, data="replay = 8")
    work.prepare(resume=False)
    work.run()
    rng = np.random.default_rng(9)
    frames = [water(rng, 2) for _ in range(20)]
    write(folder / "same.extxyz", frames)
    for atoms in frames:
        energy = atoms.get_potential_energy() + 300.0
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=0.8 * atoms.get_forces())
    write(folder / "mine.extxyz", frames)
    return folder


def test_replay_frames_lie_beside_the_weights(files):
    frames = read(files / "old" / "best" / "replay.extxyz.gz", ":")
    assert [a.info["split"] for a in frames].count("train") == 8
    assert {a.info["head"] for a in frames} == {"toy-theory"} and frames[0].get_forces().any()
    assert load_potential(str(files / "old" / "best"), device="cpu")


def test_energies_of_another_zero_are_not_replayed(files, tmp_path):
    """Frames that their recipe learned forces from alone say so, and are a source of their own, without energies."""
    write_frames(tmp_path, 20, sizes=(1, 2))
    work = trainer(tmp_path, "forces", steps=2, every=2, data="replay = 8\nenergies = false")
    work.prepare(resume=False)
    work.run()
    forces = read(tmp_path / "forces" / "best" / "replay.extxyz.gz", ":")
    assert {a.info["learn"] for a in forces} == {"forces"}
    both = read(files / "old" / "best" / "replay.extxyz.gz", ":")
    assert not any("learn" in a.info for a in both)
    write(tmp_path / "replay.extxyz", both + forces)
    wish = FineTune(str(files / "old" / "best"), files / "mine.extxyz", replay=str(tmp_path / "replay.extxyz"))
    _, old, alone = fine_tune_recipe(wish).data
    assert (old.energies, old.forces, old.exclude) == (True, True, {"learn": "energies,forces"})
    assert (alone.energies, alone.forces, alone.only) == (False, True, {"head": "toy-theory", "learn": "forces"})
    write(tmp_path / "few.extxyz", both + forces[:3])
    mine, many, few = fine_tune_recipe(replace(wish, replay=str(tmp_path / "few.extxyz"))).data
    assert many.weight / few.weight == pytest.approx((len(both) / 3) ** 0.5)  # few frames are drawn less often
    assert many.weight + few.weight == pytest.approx(mine.weight)
    both[0].info["learn"] = "stress"
    write(tmp_path / "odd.extxyz", both)
    with pytest.raises(InputError, match="learn=stress; energies or forces"):
        fine_tune_recipe(replace(wish, replay=str(tmp_path / "odd.extxyz")))


def test_bundled_frames_to_replay_have_the_zero_of_their_head():
    """Energies that are learned lie within 15 eV an atom of free atoms; those of all electrons are 1,600 off."""
    seen = set()
    for _, card in map(resolve, (m.full_name for m in list_models() if m.status == "bundled")):
        path = replay_of(BUNDLED / folder_name(card), card)
        if path is None or path in seen:
            continue
        seen.add(path)
        reference = {h.name: h.reference_by_number for h in card.heads}
        frames = open_frames(path)
        for atoms in (frames[k] for k in range(0, len(frames), 5)):
            if atoms.info.get("learn") != "forces":
                free = sum(reference[atoms.info["head"]][z] for z in atoms.numbers)
                assert abs(atoms.get_potential_energy() - free) < 15 * len(atoms)
    assert len(seen) == 6


def test_one_line(files):
    """A new head learns, the old one is replayed and kept, the table says what came of both."""
    words = ("--from", files / "old" / "best", "--data", files / "mine.extxyz", "--length", 40, "--threads", 1)
    text = omnicalc("train", *words, "--out", files / "tuned")
    assert "18 training and 2 validation structures" in text and "replay toy-theory" in text
    row = next(line for line in text.splitlines() if line.startswith("mine ") and "->" in line)
    before, after = (float(part.split()[-1 if k == 0 else 0]) for k, part in enumerate(row.split("->")[:2]))
    assert after < 0.9 * before
    card = read_card(files / "tuned" / "weights" / "card.toml")
    typed = shlex.split(card.training["command"])
    assert typed[:2] == ["omnicalc", "train"] and set(map(str, words[:6])) | {"--out"} <= set(typed)
    assert "--threads" not in typed  # which changes no weights
    assert [h.name for h in card.heads] == ["mine", "toy-theory"]
    old = read_card(files / "old" / "best" / "card.toml")
    assert card.heads[1].reference == old.heads[0].reference
    water_energy = 2 * card.heads[0].reference["H"] + card.heads[0].reference["O"]
    assert water_energy == pytest.approx(-460.0 + 150.0, abs=1.0)  # refitted to the new zero
    assert (files / "tuned" / "weights" / "model.safetensors").stat().st_size > 1000


def test_frames_are_read_once_for_the_recipe(files, monkeypatch):
    """But for those that the reference energies are fitted to; and none is kept as tensors."""
    reads, told, alive = [], [], []

    class Counted(list):
        def __getitem__(self, k):
            reads.append(k)
            return super().__getitem__(k)

    def frames(path):
        return Counted(read(files / "mine.extxyz", ":") * 3)

    def progress(*given):
        told.append(given)
        alive.append(sum(type(each) is Systems for each in gc.get_objects()))

    monkeypatch.setattr(fine_tune, "open_frames", frames)
    monkeypatch.setattr(fine_tune, "_FITTED", 5)
    wish = FineTune(str(files / "old" / "best"), files / "mine.extxyz", replay="none")
    fine_tune_recipe(wish, progress)
    assert len(reads) == 60 + 5
    assert told == [(k, 60) for k in range(1, 61)] and alive[-1] <= alive[0] + 1


def test_before_and_after_are_of_the_same_frames(files, tmp_path, monkeypatch):
    """Validations on the way may take fewer, and the best weights are chosen among those."""
    monkeypatch.setattr(fine_tune, "VALIDATED", 1)
    recipe = fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "mine.extxyz", length=6))
    work = Trainer(recipe, None, tmp_path / "run", report=lambda line: None)
    work.prepare(resume=False)
    tried = []

    def keep_best(found):
        tried.append(work.step)
        work.best = 0.0

    monkeypatch.setattr(work, "_keep_best", keep_best)
    work.run()
    rows = [r for r in work.log.read() if r["group"] == "all"]
    taken = {step: [int(r["structures"]) for r in rows if int(r["step"]) == step] for step in range(7)}
    assert taken[0] == taken[6] == [len(source.valid) for source in work.dataset.sources]
    assert max(taken[0]) > 1 and all(taken[k] == [1, 1] for k in range(1, 6))
    assert tried == [1, 2, 3, 4, 5]


def test_frozen_trunk_keeps_the_old_head_as_it_was(files):
    out = files / "heads"
    words = ("--from", files / "old" / "best", "--data", files / "mine.extxyz", "--length", 8, "--threads", 1)
    omnicalc("train", *words, "--train", "heads", "--replay", "none", "--out", out)
    frames = read(files / "same.extxyz", ":3")
    old = evaluate(load_potential(str(files / "old" / "best"), device="cpu"), frames, "toy-theory")
    new = evaluate(load_potential(str(out / "weights"), device="cpu"), frames, "toy-theory")
    for a, b in zip(old.frames, new.frames, strict=True):
        assert a.energy == pytest.approx(b.energy, abs=1e-5)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-5)
    first, second = (load_file(f / "model.safetensors") for f in (files / "old" / "best", out / "weights"))
    changed = [n for n in second if n not in first or not torch.equal(first[n], second[n])]
    assert changed and all("head" in n for n in changed)


def test_lora_is_merged_into_plain_weights(files):
    out = files / "lora"
    words = ("--from", files / "old" / "best", "--data", files / "mine.extxyz", "--length", 8, "--threads", 1)
    omnicalc("train", *words, "--train", "lora", "--rank", 2, "--out", out)
    first, second = (load_file(f / "model.safetensors") for f in (files / "old" / "best", out / "weights"))
    trunk = [n for n in first if n in second and "head" not in n]
    changed = [n for n in trunk if not torch.equal(first[n], second[n])]
    assert changed and all(first[n].ndim == 2 for n in changed)
    for n in changed:
        assert torch.linalg.matrix_rank((second[n] - first[n]).double(), rtol=1e-4) <= 2
    assert load_potential(str(out / "weights"), device="cpu").heads.keys() == {"mine", "toy-theory"}


def test_refusals(files):
    old, mine = str(files / "old" / "best"), files / "mine.extxyz"
    with pytest.raises(InputError, match=r"are \+(49.9|50).* eV per atom off those of head 'toy-theory'"):
        fine_tune_recipe(FineTune(old, mine, head="toy-theory"))
    assert fine_tune_recipe(FineTune(old, files / "same.extxyz", head="toy-theory")).heads == ("toy-theory",)
    frames = read(mine, ":")
    for atoms in frames:
        atoms.info["level_of_theory"] = "another"
    write(files / "stated.extxyz", frames)
    with pytest.raises(InputError, match="say level_of_theory = another, head 'toy-theory' is a spring"):
        fine_tune_recipe(FineTune(old, files / "stated.extxyz", head="toy-theory"))
    frames[2].numbers[0] = 16
    write(files / "sulphur.extxyz", frames)
    with pytest.raises(InputError, match="has never seen S"):
        fine_tune_recipe(FineTune(old, files / "sulphur.extxyz"))
    with pytest.raises(InputError, match="every frame to replay needs the key head"):
        fine_tune_recipe(FineTune(old, mine, replay=str(mine)))
    with pytest.raises(InputError, match="give a RECIPE to train, or weights to fine-tune"):
        omnicalc("train", "--data", mine, "--out", files / "x")
    with pytest.raises(InputError, match="--length is for fine-tuning"):
        recipe_in(files)
        omnicalc("train", files / "recipe.toml", "--data", files, "--out", files / "x", "--length", 5)


def test_frames_of_a_charge_that_the_start_does_not_know(files):
    """They are what it is to learn; the new weights take both charges."""
    frames = read(files / "mine.extxyz", ":")
    for atoms in frames:
        atoms.info["charge"] = 2
    write(files / "charged.extxyz", frames)
    old = str(files / "old" / "best")
    assert 2 not in load_potential(old, device="cpu").charges
    assert fine_tune_recipe(FineTune(old, files / "charged.extxyz")).charges == (0, 2)


def test_splits_that_only_some_frames_have(files):
    """A test frame among frames without the key would be learned from."""
    frames = read(files / "mine.extxyz", ":")
    frames[0].info["split"] = "test"
    write(files / "some.extxyz", frames)
    with pytest.raises(InputError, match="frame 1 of .*some.extxyz' lacks the key split"):
        fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "some.extxyz"))


def test_a_new_head_has_the_zero_of_its_training_frames(files, tmp_path):
    """Frames to validate and to test on may say what they will."""
    frames = read(files / "mine.extxyz", ":")

    def references(shifted, keys):
        for k, atoms in enumerate(frames):
            part = ("train", "train", "valid", "test")[k % 4] if keys else ("valid" if k % 10 == 9 else "train")
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            moved = atoms.copy()
            moved.info.pop("split", None)
            if keys:
                moved.info["split"] = part
            energy += 60.0 * (part in shifted)
            moved.calc = SinglePointCalculator(moved, energy=energy, forces=forces)
            write(tmp_path / "shifted.extxyz", moved, append=k > 0)
        recipe = fine_tune_recipe(FineTune(str(files / "old" / "best"), tmp_path / "shifted.extxyz"))
        return recipe.references["shifted"]

    for keys in (True, False):
        plain = references((), keys)
        assert references(("valid", "test"), keys) == plain
        water_energies = [2 * t["H"] + t["O"] for t in (references(("train",), keys), plain)]
        assert water_energies[0] - water_energies[1] == pytest.approx(30.0, abs=1e-6)  # of two waters, shifted by 60


def test_splits_of_another_name_are_shown(files):
    frames = read(files / "mine.extxyz", ":")
    for k, atoms in enumerate(frames):
        atoms.info["split"] = "train" if k % 4 else "val"
    write(files / "val.extxyz", frames)
    recipe = fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "val.extxyz"))
    with pytest.raises(InputError, match=r"has the key split=valid; .* there are: train \(15\), val \(5\)"):
        Trainer(recipe, None, files / "nowhere")
    frames = [a for a in frames if a.info["split"] == "val"]
    write(files / "val.extxyz", frames)
    recipe = fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "val.extxyz"))  # and none to fit to
    with pytest.raises(InputError, match=r"has the key split=train; .* there are: val \(5\)"):
        Trainer(recipe, None, files / "nowhere")


def test_a_head_has_one_level_of_theory(files):
    """The one that all frames say, unless the user says another; frames of two are refused."""
    frames = read(files / "mine.extxyz", ":")
    for atoms in frames:
        atoms.info["level_of_theory"] = "pbe0/def2-svp"
    write(files / "stated.extxyz", frames)
    wish = FineTune(str(files / "old" / "best"), files / "stated.extxyz", replay="none")
    assert [s.level_of_theory for s in fine_tune_recipe(wish).data] == ["pbe0/def2-svp"]
    assert fine_tune_recipe(replace(wish, level="PBE0")).data[0].level_of_theory == "PBE0"
    frames[4].info["level_of_theory"] = "gfn2-xtb"
    write(files / "stated.extxyz", frames)
    with pytest.raises(InputError, match="gfn2-xtb, pbe0/def2-svp; .* subset FILE --only level_of_theory=gfn2-xtb"):
        fine_tune_recipe(replace(wish, head="mine"))


@pytest.mark.parametrize(("stem", "head"), [("train", "train-data"), ("keys", "keys-data"), ("my frames", "my frames")])
def test_heads_named_after_files_can_be_built(files, tmp_path, stem, head):
    shutil.copy(files / "mine.extxyz", tmp_path / f"{stem}.extxyz")
    recipe = fine_tune_recipe(FineTune(str(files / "old" / "best"), tmp_path / f"{stem}.extxyz", replay="none"))
    assert recipe.heads[0] == head
    Trainer(recipe, None, tmp_path / "run", report=lambda line: None)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_torch_cannot_take(files, seed):
    words = ("--from", files / "old" / "best", "--data", files / "mine.extxyz", "--out", files / "seed")
    assert "is not in the range" in omnicalc("train", *words, "--seed", seed, code=2)


def changed(files, name, change):
    """The frames of another level of theory, changed by ``change`` (k, atoms, energy, forces), as a file."""
    frames = read(files / "mine.extxyz", ":")
    for k, atoms in enumerate(frames):
        energy, forces = change(k, atoms, atoms.get_potential_energy(), atoms.get_forces())
        found = {name: value for name, value in (("energy", energy), ("forces", forces)) if value is not None}
        atoms.calc = SinglePointCalculator(atoms, **found)
    write(files / name, frames)
    return files / name


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda k, a, e, f: (e, -f), "point against those of .*they look like gradients"),
        (lambda k, a, e, f: (23.06 * e, 23.06 * f), r"2.* times those of .* \(in kcal/mol/Å\?\); eV/Å is needed"),
        (lambda k, a, e, f: (e, None if k == 7 else f), "frame 7 of .* lacks forces"),
        (lambda k, a, e, f: (e, f * (float("nan") if k == 7 else 1)), "frame 7 of .*: forces not finite"),
        (lambda k, a, e, f: (a.info.update(charge=1 if k == 7 else 0, spin=1), (e, f))[1], "frame 7 of .*: spin 1"),
    ],
    ids=["gradients", "kcal", "missing", "nan", "parity"],
)
def test_labels_that_cannot_be_right(files, change, message):
    path = changed(files, "wrong.extxyz", change)
    with pytest.raises(InputError, match=message):
        fine_tune_recipe(FineTune(str(files / "old" / "best"), path))


def test_few_frames_are_split_all_the_same(files):
    """Two frames: one to learn from, one to check; one frame: refused. Molecules: by hash, where that gives both."""
    frames = read(files / "mine.extxyz", ":")
    write(files / "two.extxyz", frames[:2])
    (source, *_) = fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "two.extxyz", replay="none")).data
    assert (source.split_by, source.valid_fraction) == ("frame", 0.5)
    write(files / "one.extxyz", frames[:1])
    with pytest.raises(InputError, match="has 1 frame; two are needed"):
        fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "one.extxyz"))
    for names, wanted in (("abcdefghijklmnopqrst", "molecule"), ("a" * 20, "frame")):
        for atoms, name in zip(frames, names, strict=True):
            atoms.info["molecule"] = name
        write(files / "named.extxyz", frames)
        recipe = fine_tune_recipe(FineTune(str(files / "old" / "best"), files / "named.extxyz", replay="none"))
        assert recipe.data[0].split_by == wanted


def test_matrices_step_as_in_the_training_of_the_start(files, tmp_path):
    wish = FineTune(str(files / "old" / "best"), files / "mine.extxyz")
    assert fine_tune_recipe(wish).optimiser.matrices == "adam"
    assert fine_tune_recipe(replace(wish, matrices="muon")).optimiser.matrices == "muon"
    by_muon = tmp_path / "start"
    shutil.copytree(files / "old" / "best", by_muon)
    card = read_card(by_muon / "card.toml")
    write_card(by_muon / "card.toml", replace(card, training={**card.training, "matrices": "muon"}))
    wish = replace(wish, start=str(by_muon))
    assert fine_tune_recipe(wish).optimiser.matrices == "muon"
    assert fine_tune_recipe(replace(wish, matrices="adam")).optimiser.matrices == "adam"
    assert fine_tune_recipe(replace(wish, trains="lora")).optimiser.matrices == "adam"


def test_the_rate_goes_with_the_size_of_the_network(files, monkeypatch):
    wish = FineTune(str(files / "old" / "best"), files / "mine.extxyz")
    assert fine_tune_recipe(wish).stages[0].learning_rate == 2e-3
    assert fine_tune_recipe(replace(wish, learning_rate=0.01)).stages[0].learning_rate == 0.01
    monkeypatch.setattr(fine_tune, "_SMALL", 100)
    assert fine_tune_recipe(wish).stages[0].learning_rate == 5e-4


def test_bundled_frames_to_replay_are_of_the_heads_they_name():
    """Those beside the weights that ship: read, labelled, of both splits, and with elements that the head knows."""
    found = 0
    for _, card in map(resolve, (m.full_name for m in list_models() if m.status == "bundled")):
        path = replay_of(BUNDLED / folder_name(card), card)
        if path is None:
            continue
        heads = {h.name: h.numbers for h in card.heads}
        frames = open_frames(path)
        chosen = [frames[k] for k in (*range(0, len(frames), 20), len(frames) - 1)]
        assert {a.info["split"] for a in chosen} == {"train", "valid"}
        for atoms in chosen:
            assert set(atoms.numbers.tolist()) <= heads[atoms.info["head"]] and np.isfinite(atoms.get_forces()).all()
        found += 1
    assert found == 23


def test_bundled_frames_are_stored_once():
    contents = [path.read_bytes() for path in BUNDLED.glob(f"*/{REPLAY}")]
    assert len(contents) == len(set(contents)) == 6


def test_frames_shared_by_weights_side_by_side(files, tmp_path):
    """One folder has the file, the other names it; alone, it says what is missing."""
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        shutil.copytree(files / "old" / "best", folder)
    (other / REPLAY).unlink()
    card = read_card(other / "card.toml")
    wish = FineTune(str(other), files / "mine.extxyz")
    assert len(fine_tune_recipe(wish).data) == 1  # none to replay
    write_card(other / "card.toml", replace(card, training={**card.training, "replay": "own"}))
    assert fine_tune_recipe(wish).data[1].shards == str(own / REPLAY)
    own.rename(tmp_path / "away")
    with pytest.raises(WeightsError, match="own/replay.extxyz.gz, which is not there.*--replay none"):
        fine_tune_recipe(wish)
    assert len(fine_tune_recipe(replace(wish, replay="none")).data) == 1


def test_weights_of_single_molecules_may_learn_from_boxes(files, tmp_path):
    """They refuse them, but for the frames that they are to learn from."""
    start = shutil.copytree(files / "old" / "best", tmp_path / "single")
    card = read_card(start / "card.toml")
    write_card(start / "card.toml", replace(card, heads=(replace(card.heads[0], periodic="refused"),)))
    frames = read(files / "same.extxyz", ":")
    for atoms in frames:
        atoms.set_cell([30.0, 30.0, 30.0])
        atoms.pbc = True
    write(tmp_path / "boxed.extxyz", frames)
    potential = load_potential(start, device="cpu")
    with pytest.raises(InputError, match="frame 0: head 'toy-theory' .*single molecules"):
        evaluate(potential, frames)
    for head in ("toy-theory", "new"):
        recipe = fine_tune_recipe(FineTune(str(start), tmp_path / "boxed.extxyz", head=head))
        assert recipe.data[0].head == head
