"""The trainer on a toy data set: learning, exact resume, refusals, signals, full disks, export."""

import hashlib
import json
import signal
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import read, write

from omnicalc.card import read_card
from omnicalc.errors import InputError, RunError
from omnicalc.training import run
from omnicalc.training.export import export
from omnicalc.training.recipe import read_recipe
from omnicalc.training.state import check_folder, load_state, save_state
from omnicalc.training.trainer import Trainer
from omnicalc.training.validation import averaged_weights, validate
from tests.training.toy import recipe_in, trainer, write_frames

FORCES_FIRST = "energy_weight = 0.3\nenergy_weight_late = 3.0"
BATCH = "[batch]\natoms = 30\npacks = 2"


def errors_of(work: Trainer) -> dict[str, float]:
    with averaged_weights(work.model, work.adam.averaged):
        found = validate(
            work.model, work.objective, work.dataset, work.recipe.batch, work.processes, torch.device("cpu")
        )
    return found[0].errors


def test_errors_fall(folder):
    work = trainer(folder, steps=150, every=50, stage=FORCES_FIRST)
    before = errors_of(work)
    work.prepare(resume=False)
    work.run()
    after = errors_of(work)
    assert after["force_mae"] < 0.4 * before["force_mae"]
    rows = work.log.read()
    assert float(rows[-1]["force_mae"]) == pytest.approx(after["force_mae"])
    assert float(rows[-1]["train_force"]) < 0.5 * float(rows[0]["train_force"])
    assert (work.out / "learning_curve.png").stat().st_size > 10_000


@pytest.mark.parametrize("batch", ["", BATCH])
def test_resumed_training_is_the_same_training(tmp_path, batch):
    """To the bit, in the middle of a pass through the data and of a planned window, with packs of several sizes."""
    write_frames(tmp_path, 40, sizes=(1, 2, 3))
    whole = trainer(tmp_path, "whole", batch=batch)
    whole.prepare(resume=False)
    whole.run()
    first = trainer(tmp_path, "parts", batch=batch)
    first.prepare(resume=False)
    first.run(27)
    second = trainer(tmp_path, "parts", batch=batch)
    second.prepare(resume=True)
    assert second.step == 27
    second.run()
    for name, tensor in whole.averaged.items():
        assert torch.equal(tensor, second.averaged[name]), name
    assert (tmp_path / "whole/best/model.safetensors").read_bytes() == (
        tmp_path / "parts/best/model.safetensors"
    ).read_bytes()
    # the wrong variant: a state whose plan of packs starts over gives other weights
    third = trainer(tmp_path, "other", batch=batch)
    third.prepare(resume=False)
    third.run(27)
    third.sampler.restore(trainer(tmp_path, "x", batch=batch).sampler.state)
    third.run()
    assert any(not torch.equal(t, third.averaged[n]) for n, t in whole.averaged.items())


def test_the_same_losses_whether_the_examples_were_kept_or_read_again(folder, monkeypatch):
    kept = trainer(folder, "kept")
    kept.prepare(resume=False)
    kept.run(20)
    monkeypatch.setattr("omnicalc.training.dataset._CACHE_BYTES", 0)
    read_again = trainer(folder, "again")
    read_again.prepare(resume=False)
    read_again.run(20)
    assert len(read_again.dataset._cache) == 1
    for name, tensor in kept.averaged.items():
        assert torch.equal(tensor, read_again.averaged[name]), name


def test_log_lines_after_the_saved_state_are_dropped_on_resume(folder):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(20)
    state = work.state_file.read_bytes()
    work.run(20)
    work.state_file.write_bytes(state)  # as if killed between step 20 and 40
    again = trainer(folder)
    again.prepare(resume=True)
    steps = [int(line.split(",")[0]) for line in (folder / "run" / "log.csv").read_text().splitlines()[1:]]
    assert max(steps) == again.step == 20


def test_rounding_of_references_makes_no_other_recipe(folder):
    """They are fitted again by whatever machine goes on."""
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(10)
    stored = folder / "run" / "recipe.json"
    told = json.loads(stored.read_text())
    for change, refused in ((1e-9, False), (1e-3, True)):
        told["references"] = {"a": {"H": -13.6 * (1 + change)}}
        stored.write_text(json.dumps(told))
        given = replace(work.recipe, references={"a": {"H": -13.6}})
        with pytest.raises(InputError, match="recipe differs") if refused else nullcontext():
            check_folder(given, folder / "run", resume=True)


def test_refusals(folder):
    work = trainer(folder)
    with pytest.raises(InputError, match="no training run to resume"):
        work.prepare(resume=True)
    work.prepare(resume=False)
    with pytest.raises(InputError, match="not empty"):
        trainer(folder).prepare(resume=False)
    work.run(10)
    with pytest.raises(InputError, match="recipe differs"):
        trainer(folder, steps=70).prepare(resume=True)
    recipe = recipe_in(folder)
    (folder / "frames.extxyz").write_text((folder / "frames.extxyz").read_text() + "\n")
    with pytest.raises(InputError, match="sha256 .* a copy of the recipe without this sha256"):
        Trainer(recipe, folder, folder / "x")
    (folder / "frames.extxyz").unlink()
    told = replace(recipe, data=(replace(recipe.data[0], repository="a hub", path="a.npy", conversion="6 decimals"),))
    with pytest.raises(InputError, match=r"is not below .* a hub .*a\.npy\): 6 decimals"):
        Trainer(told, folder, folder / "x")


def shards_trainer(folder) -> Trainer:
    """One whose recipe asks for no sha256 of its files."""
    recipe = recipe_in(folder)
    recipe = replace(recipe, data=(replace(recipe.data[0], file="", sha256="", shards="shards/*.extxyz"),))
    return Trainer(recipe, folder, folder / "run", report=lambda line: None)


def move(atoms):
    atoms.positions[0, 0] += 0.01


def change_energy(atoms):
    atoms.calc.results["energy"] += 0.5


def change_forces(atoms):
    atoms.calc.results["forces"] = 2 * atoms.get_forces()


def change_spin(atoms):
    atoms.info["spin"] = 3


@pytest.mark.parametrize("change", [move, change_energy, change_forces, change_spin])
def test_shards_that_changed_are_not_resumed(tmp_path, change):
    write_frames(tmp_path)
    (tmp_path / "shards").mkdir()
    write_frames(tmp_path / "shards", name="a.extxyz")
    work = shards_trainer(tmp_path)
    work.prepare(resume=False)
    work.run(10)
    frames = read(tmp_path / "shards" / "a.extxyz", ":")
    change(frames[3])
    write(tmp_path / "shards" / "a.extxyz", frames)
    with pytest.raises(InputError, match="the data differ"):
        shards_trainer(tmp_path).prepare(resume=True)
    # the wrong variant: what a folder of an earlier version knows of its data, the geometries alone
    state = load_state(work.state_file)
    del state["files"]
    save_state(work.state_file, state)
    if change is not move:
        shards_trainer(tmp_path).prepare(resume=True)


def test_reference_energies_of_a_run_are_fitted_once(folder, monkeypatch):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(10)
    other = {1: -13.0, 8: -433.0}  # as another machine's least squares might be
    monkeypatch.setattr("omnicalc.training.dataset.fit_references", lambda *_: other)
    again = trainer(folder)
    again.prepare(resume=True)
    assert again.dataset.references == work.dataset.references != {"toy-theory": other}
    entry = work.dataset.sources[0].train[0]
    assert again.dataset.example(0, entry).energy == work.dataset.example(0, entry).energy
    state = load_state(work.state_file)  # a folder of an earlier version, whose data are the same
    del state["files"], state["references"]
    save_state(work.state_file, state)
    old = trainer(folder)
    old.prepare(resume=True)
    assert old.step == 10 and old.dataset.references == {"toy-theory": other}


def test_a_step_that_is_not_finite_is_skipped_and_too_many_end_the_run(folder, monkeypatch):
    work = trainer(folder, optimiser="skip_at_most = 2")
    work.prepare(resume=False)
    work.run(10)
    before = {n: t.clone() for n, t in work.averaged.items()}
    loss = work.objective.loss
    monkeypatch.setattr(work.objective, "loss", lambda *a: tuple((x * np.nan, t) for x, t in [loss(*a)])[0])
    work._advance(type("Wish", (), {"signal": None}))
    assert (work.step, work.skipped) == (11, 1)
    assert all(torch.equal(t, before[n]) for n, t in work.averaged.items())
    with pytest.raises(RunError, match="step 12, the last of 3 such steps in a row .its first structure: frame"):
        work.run(9)
    assert load_state(work.state_file)["step"] == 10
    monkeypatch.setattr(work.objective, "loss", loss)
    work.run(1)  # a good step ends the row
    assert work.skipped_in_a_row == 0


def test_a_signal_ends_after_the_step_and_resumes_to_the_same_weights(folder, monkeypatch):
    whole = trainer(folder, "whole")
    whole.prepare(resume=False)
    assert whole.run(10) is None
    stopped = trainer(folder, "stopped")
    stopped.prepare(resume=False)
    advance = stopped._advance

    def interrupted(wish):
        if stopped.step == 3:
            signal.raise_signal(signal.SIGINT)  # in the middle of a step
        return advance(wish)

    monkeypatch.setattr(stopped, "_advance", interrupted)
    assert stopped.run(10) == signal.SIGINT
    assert load_state(stopped.state_file)["step"] == 4
    again = trainer(folder, "stopped")
    again.prepare(resume=True)
    again.run(6)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


def test_a_full_disk_keeps_the_state_saved_before(folder, monkeypatch):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(5)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device; the state saved before is still there"):
        work.run(2)
    assert load_state(work.state_file)["step"] == 5
    assert sorted(p.name for p in work.out.iterdir()) == ["log.csv", "recipe.json", "state.pt"]


@pytest.mark.parametrize("before", [0, 5])
def test_a_full_disk_at_a_validation_says_how_to_go_on(folder, monkeypatch, before):
    work = trainer(folder, every=6, steps=6)
    work.prepare(resume=False)
    if before:
        work.run(before)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omnicalc.training.export.write_atomically", full)
    later = "state saved before is still there.*--resume" if before else "no state was saved before.*another --out"
    with pytest.raises(RunError, match=f"cannot write .*run: No space left on device; .*{later}"):
        work.run()


def test_a_finished_run_that_is_resumed_exports_the_same(folder, monkeypatch):
    """Its card has the errors of the last validation, whatever came between the last state and the export."""
    recipe = recipe_in(folder, data='name = "frames, all"')
    words = {"resume": False, "steps": None, "device": "cpu", "report": lambda line: None, "progress": lambda *_: None}
    with monkeypatch.context() as patched:
        patched.setattr(run, "export", lambda *_: 1 / 0)  # as if killed there
        with pytest.raises(ZeroDivisionError):
            run.train(recipe, folder, folder / "run", **words)
    assert not (folder / "run" / "weights").exists()
    whole = Trainer(recipe, folder, folder / "whole", report=lambda line: None)
    whole.prepare(resume=False)
    whole.run()
    card = export(whole, folder / "weights")
    for _ in range(2):
        assert run.train(recipe, folder, folder / "run", **words | {"resume": True}) == 0
        again = read_card(folder / "run" / "weights" / "card.toml")
        assert again.accuracy == card.accuracy and len(again.accuracy["toy-theory"]) > 3
        assert again.sha256 == card.sha256


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.json", b"{"),
        ("recipe.json", b"\xff\xfe"),
        ("recipe.json", b"[]"),
        ("log.csv", b""),
        ("log.csv", b"junk\n"),
        ("log.csv", None),
    ],
)
def test_a_damaged_record_is_refused(folder, name, content):
    work = trainer(folder, every=5)
    work.prepare(resume=False)
    work.run(10)
    path = folder / "run" / name
    kept = path.read_bytes()
    lines = kept.decode().splitlines(keepends=True)
    path.write_bytes("".join([*lines[:-1], "junk,1\n", lines[-1]]).encode() if content is None else content)
    with pytest.raises(RunError, match=f"{name} is damaged"):
        trainer(folder, every=5).prepare(resume=True)
    path.write_bytes(kept + b"15,0.00" if name == "log.csv" else kept)  # killed while a line was being written
    again = trainer(folder, every=5)
    again.prepare(resume=True)
    assert again.last_errors == work.last_errors and (folder / "run" / name).read_bytes() == kept


def test_a_damaged_state_is_refused(folder):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(5)
    work.state_file.write_bytes(work.state_file.read_bytes()[:1000])
    with pytest.raises(RunError, match="damaged"):
        trainer(folder).prepare(resume=True)


def test_export_writes_a_loadable_folder(folder):
    from omnicalc import load_potential

    work = trainer(folder)
    work.prepare(resume=False)
    work.run()
    card = export(work, folder / "weights")
    assert card.sha256 == hashlib.sha256((folder / "weights" / "model.safetensors").read_bytes()).hexdigest()
    potential = load_potential(str(folder / "weights"), device="cpu")
    assert set(potential.heads) == {"toy-theory"}
    for name, tensor in potential.model.named_parameters():
        assert torch.equal(tensor, work.averaged[name]), name
    accuracy = card.accuracy["toy-theory"]
    assert accuracy["force_mae_meV_per_A"] == pytest.approx(1e3 * errors_of(work)["force_mae"], abs=1e-3)
    assert accuracy["domains"]["frames"]["structures"] == 4


def test_the_card_says_whether_the_data_were_periodic(folder):
    """By the frames; what the start knew still holds; a recipe of single molecules refuses boxes, and periodic data."""
    from omnicalc.training.export import export

    def exported(recipe, out: str) -> str:
        work = Trainer(recipe, folder, folder / out, report=lambda line: None)
        return export(work, folder / out).heads[0].periodic

    vacuum = recipe_in(folder)
    assert exported(vacuum, "vacuum") == "untrained"
    assert exported(replace(vacuum, periodic="refused"), "single") == "refused"
    assert exported(replace(vacuum, start=str(folder / "single")), "tuned") == "refused"
    frames = read(folder / "frames.extxyz", ":")
    for atoms in frames:
        atoms.set_cell([20.0, 20.0, 20.0])
        atoms.pbc = True
    write(folder / "frames.extxyz", frames)
    assert exported(recipe_in(folder), "box") == "trained"
    assert exported(replace(recipe_in(folder), start=str(folder / "single")), "boxed") == "trained"
    with pytest.raises(InputError, match='is periodic, and the recipe says periodic = "refused"'):
        Trainer(replace(recipe_in(folder), periodic="refused"), folder, folder / "x")
    (folder / "recipe.toml").write_text('periodic = "maybe"\n' + (folder / "recipe.toml").read_text())
    with pytest.raises(InputError, match="periodic = 'maybe' .*'refused'"):
        read_recipe(folder / "recipe.toml")


def test_direct_forces_first_then_gradients(folder):
    """S1 -> S2: a model with a direct force head, its trunk then going on with gradients."""
    direct = trainer(folder, "s1", model='forces = "linear"', steps=150, every=150, stage=FORCES_FIRST)
    assert not direct.model.conservative
    before = errors_of(direct)
    direct.prepare(resume=False)
    direct.run()
    assert errors_of(direct)["force_mae"] < 0.5 * before["force_mae"]

    recipe = replace(recipe_in(folder), start=str(folder / "s1" / "best"))
    second = Trainer(recipe, folder, folder / "s2", report=lambda line: None)
    assert second.model.conservative
    copied = load_weights(folder / "s1" / "best")
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, copied[name]), name
    assert "1 of the start are not used: force_heads.toy-theory.weight" in second.start_report


def load_weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_direct_forces_have_no_stress_to_learn(folder):
    with pytest.raises(InputError, match="stress_weight is above 0 .* it has no stress"):
        trainer(folder, model='forces = "linear"', stage="stress_weight = 0.1")


def test_bf16_is_refused_where_nothing_comes_of_it(folder):
    with pytest.raises(InputError, match="bf16 = true: E2Former-V2 computes in float32"):
        trainer(folder, optimiser="bf16 = true")
