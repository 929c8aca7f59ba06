"""The trainer on a tiny data set: learning, exact resume, hashes, reference energies, and the compiled step's twin."""

import hashlib
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from omnicalc.errors import InputError, RunError
from omnicalc.files import sha256_of
from omnicalc.models import build_model
from omnicalc.training.dataset import fit_references
from omnicalc.training.recipe import Stage, read_recipe
from omnicalc.training.step import Step
from omnicalc.training.trainer import Trainer, TrainState, energy_weight, learning_rate, mean_errors

RECIPE = """
name = "toy"
tag = "test"
version = "0.1"
family = "e2former"
summary = "a toy"
licence = "MIT"
reference_note = "least squares"
[reference_prior]
H = -13.6
O = -432.0
[model]
elements = [1, 8]
channels = 8
n_basis = 6
radial_width = 8
embedding_scale = 2.0
[optimiser]
ema = 0.9
validate_every = 10
checkpoint_every = 10
[[stages]]
steps = {steps}
warmup = 5
learning_rate = 0.01
[[data]]
head = "toy-theory"
level_of_theory = "a spring"
file = "frames.extxyz"
sha256 = "{sha}"
repository = "made by the test"
commit = "none"
path = "none"
licence = "MIT"
citation = "none"
split_note = "random"
"""


def water(rng) -> Atoms:
    """A water with springs between all pairs: energy and exact forces."""
    atoms = Atoms("OHH", np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + rng.normal(scale=0.08, size=(3, 3)))
    energy, forces = -460.0, np.zeros((3, 3))
    for i, j, rest in ((0, 1, 0.96), (0, 2, 0.96), (1, 2, 1.52)):
        d = atoms.positions[i] - atoms.positions[j]
        r = np.linalg.norm(d)
        energy += 5.0 * (r - rest) ** 2
        forces[i] -= 10.0 * (r - rest) * d / r
        forces[j] += 10.0 * (r - rest) * d / r
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    frames = [water(rng) for _ in range(24)]
    for k, atoms in enumerate(frames):
        atoms.info["split"] = "valid" if k % 6 == 0 else "train"
    write(tmp_path / "frames.extxyz", frames)
    return tmp_path


def recipe_in(folder, steps=60):
    file = folder / "recipe.toml"
    file.write_text(RECIPE.format(steps=steps, sha=sha256_of(folder / "frames.extxyz")))
    return read_recipe(file)


def trainer(folder, out="run", **kwargs):
    return Trainer(recipe_in(folder, **kwargs), folder, folder / out, report=lambda line: None)


def test_errors_fall(folder):
    work = trainer(folder, steps=300)
    before = mean_errors(work.model, work.state.averaged, work.dataset.valid[0])
    work.prepare(resume=False)
    work.run()
    after = mean_errors(work.model, work.state.averaged, work.dataset.valid[0])
    assert after[0] < 0.3 * before[0]


def test_resumed_training_is_the_same_training(folder):
    whole = trainer(folder, "whole")
    whole.prepare(resume=False)
    whole.run()
    first = trainer(folder, "parts")
    first.prepare(resume=False)
    first.run(30)
    second = trainer(folder, "parts")
    second.prepare(resume=True)
    assert second.state.step == 30
    second.run()
    for name, tensor in whole.state.averaged.items():
        assert torch.equal(tensor, second.state.averaged[name]), name
    assert (folder / "whole" / "log.csv").read_text() == (folder / "parts" / "log.csv").read_text()
    # the wrong variant: a state whose random generator starts over gives other weights
    third = trainer(folder, "other")
    third.prepare(resume=False)
    third.run(30)
    third.state.generator.manual_seed(1)
    third.run()
    assert any(not torch.equal(t, third.state.averaged[n]) for n, t in whole.state.averaged.items())


def test_log_lines_after_the_saved_state_are_dropped_on_resume(folder):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(20)
    state = (folder / "run" / "state.pt").read_bytes()
    work.run(20)
    (folder / "run" / "state.pt").write_bytes(state)  # as if killed between step 20 and 40
    again = trainer(folder)
    again.prepare(resume=True)
    steps = [int(line.split(",")[0]) for line in (folder / "run" / "log.csv").read_text().splitlines()[1:]]
    assert max(steps) == again.state.step == 20


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
    with pytest.raises(InputError, match="sha256"):
        Trainer(recipe, folder, folder / "x")
    (folder / "frames.extxyz").unlink()
    with pytest.raises(InputError, match="is not below"):
        Trainer(recipe, folder, folder / "x")


def test_recipe_keys_are_strict(folder):
    recipe_in(folder)
    file = folder / "recipe.toml"
    text = file.read_text()
    file.write_text(text.replace("warmup", "warmpu"))
    with pytest.raises(InputError, match="unknown keys in .*warmpu"):
        read_recipe(file)
    file.write_text(text.replace('licence = "MIT"\nreference_note', "reference_note"))
    with pytest.raises(InputError, match="missing .*licence"):
        read_recipe(file)


def test_references_at_one_composition_keep_the_prior():
    frames = []
    for n in (2, 2, 4):
        atoms = Atoms(f"H{2 * n}O{n}", np.arange(9.0 * n).reshape(-1, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-460.0 * n)
        frames.append(atoms)
    found = fit_references(frames, {1: -13.6, 8: -432.0})
    assert 2 * found[1] + found[8] == pytest.approx(-460.0, abs=1e-9)
    # the correction of -0.8 eV per water is shared 2:1 as least squares of smallest size does
    assert found[1] == pytest.approx(-13.6 - 0.32, abs=1e-6)


def test_step_equals_finite_differences(folder):
    """The parameter gradient of the force loss, which needs second derivatives, in float64."""
    work = trainer(folder)
    model = build_model("e2former", {**work.recipe.model, "heads": ["toy-theory"]}).double()
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    frame = work.dataset.train[0][0]
    frame = type(frame)(**{k: v.double() if v.is_floating_point() else v for k, v in vars(frame).items()})
    step, weight = Step(model), torch.tensor(3.0, dtype=torch.float64)
    _, _, gradients = step(parameters, frame, weight)
    rng = torch.Generator().manual_seed(0)
    direction = {n: torch.randn(p.shape, generator=rng, dtype=p.dtype) for n, p in parameters.items()}

    def loss(size):
        moved = {n: p + size * direction[n] for n, p in parameters.items()}
        force, energy, _ = step(moved, frame, weight)
        return (force + weight * energy).item()

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    predicted = sum((gradients[n] * direction[n]).sum().item() for n in parameters)
    assert predicted == pytest.approx(slope, rel=1e-5)
    assert abs(1.01 * predicted - slope) > 1e-5 * abs(slope)


def test_padding_changes_nothing(folder):
    work = trainer(folder)
    frame = work.dataset.train[0][0]
    n, k = frame.index.shape
    wider = type(frame)(
        numbers=F.pad(frame.numbers, (0, 2), value=1),
        head=frame.head,
        index=torch.cat([F.pad(frame.index, (0, 3)), torch.arange(n, n + 2)[:, None].repeat(1, k + 3)]),
        mask=F.pad(frame.mask, (0, 3, 0, 2)),
        vectors=F.pad(frame.vectors, (0, 0, 0, 3, 0, 2), value=9.0),
        weight=F.pad(frame.weight, (0, 2)),
        energy=frame.energy,
        forces=F.pad(frame.forces, (0, 0, 0, 2)),
    )
    weight = torch.tensor(5.0)
    one, other = (work.step(work.state.parameters, f, weight) for f in (frame, wider))
    assert one[0].item() == pytest.approx(other[0].item(), rel=1e-5)
    for name in one[2]:
        assert torch.allclose(one[2][name], other[2][name], rtol=1e-3, atol=1e-5), name


def test_schedule():
    stage = Stage(steps=1000, warmup=100)
    assert learning_rate(stage, 0) == pytest.approx(3e-3 / 100, rel=1e-3)
    assert learning_rate(stage, 999) == pytest.approx(3e-5, rel=0.01)
    assert (energy_weight(stage, 699), energy_weight(stage, 700)) == (5.0, 40.0)


def test_stages_follow_each_other(folder):
    recipe = replace(recipe_in(folder), stages=(Stage(steps=10), Stage(steps=5, learning_rate=1e-4)))
    assert recipe.steps == 15
    assert [recipe.stage_at(k)[1] for k in (0, 9, 10, 14, 15)] == [0, 9, 0, 4, 5]
    assert recipe.stage_at(9)[0] is recipe.stages[0] and recipe.stage_at(10)[0] is recipe.stages[1]


def test_state_survives_a_round_trip(folder):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(10)
    state = TrainState.load(work.state_file)
    assert state.step == 10
    assert torch.equal(state.generator.get_state(), work.state.generator.get_state())


def test_non_finite_gradient_stops_with_the_last_state(folder):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(10)
    next(iter(work.state.parameters.values())).fill_(float("nan"))
    with pytest.raises(RunError, match="non-finite at step 10"):
        work.run(1)
    assert TrainState.load(work.state_file).step == 10


def test_a_signal_ends_after_the_step_and_resumes_to_the_same_weights(folder, monkeypatch):
    whole = trainer(folder, "whole")
    whole.prepare(resume=False)
    assert whole.run(10) is None
    stopped = trainer(folder, "stopped")
    stopped.prepare(resume=False)
    advance = stopped._advance

    def interrupted():
        if stopped.state.step == 3:
            signal.raise_signal(signal.SIGINT)  # in the middle of a step
        return advance()

    monkeypatch.setattr(stopped, "_advance", interrupted)
    assert stopped.run(10) == signal.SIGINT
    assert TrainState.load(stopped.state_file).step == 4
    again = trainer(folder, "stopped")
    again.prepare(resume=True)
    again.run(6)
    for name, tensor in whole.state.parameters.items():
        assert torch.equal(tensor, again.state.parameters[name])


def test_a_full_disk_keeps_the_state_saved_before(folder, monkeypatch):
    work = trainer(folder)
    work.prepare(resume=False)
    work.run(10)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device; the state saved before is still there"):
        work.run(10)
    assert TrainState.load(work.state_file).step == 10
    assert sorted(p.name for p in work.out.iterdir()) == ["log.csv", "recipe.json", "state.pt"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_compiled_step_equals_the_plain_one(folder):
    work = trainer(folder)
    frame, weight = work.dataset.train[0][0], torch.tensor(5.0)
    plain = Step(work.model)(work.state.parameters, frame, weight)
    compiled = Step(work.model, compiled=True)(work.state.parameters, frame, weight)
    for name in plain[2]:
        assert torch.allclose(plain[2][name], compiled[2][name], rtol=1e-4, atol=1e-6), name


def test_export_writes_a_loadable_folder(folder):
    from omnicalc import load_potential
    from omnicalc.training.export import export

    work = trainer(folder)
    work.prepare(resume=False)
    work.run()
    card = export(work, folder / "weights")
    assert card.sha256 == hashlib.sha256((folder / "weights" / "model.safetensors").read_bytes()).hexdigest()
    potential = load_potential(str(folder / "weights"), device="cpu")
    assert set(potential.heads) == {"toy-theory"}
    for name, tensor in potential.model.named_parameters():
        assert torch.equal(tensor, work.state.averaged[name]), name
