"""Training on padded batches of one shape against the plain trainer; a run of the same step stands in for the graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import write

from omnicalc.errors import InputError
from omnicalc.files import sha256_of
from omnicalc.models.e2former.attention import Attention
from omnicalc.training import recorded_gradients as room
from omnicalc.training.adam import norm_of
from omnicalc.training.objectives import StepInfo
from omnicalc.training.padded_batch import Shape
from omnicalc.training.recorded_gradients import RecordedGradients
from omnicalc.training.sampler import Sampler
from omnicalc.training.trainer import Trainer
from tests.training.toy import recipe_in, water, write_frames

SECOND = """
[[data]]
head = "boxed"
level_of_theory = "a spring, in a box"
file = "boxes.extxyz"
sha256 = "{sha}"
energies = false
[[data]]
head = "toy-theory"
level_of_theory = "a spring"
file = "energies.extxyz"
sha256 = "{energies}"
forces = false
"""
BATCH = "[batch]\nstructures = 8\nby_width = false"


class Repeated:
    """Runs the step again into the same tensors, as a graph does."""

    def __init__(self, compute, device):
        self.compute, self.found = compute, compute()

    def __call__(self):
        gradients, values, square = self.compute()
        for mine, new in zip((*self.found[0], *self.found[1:]), (*gradients, values, square), strict=True):
            mine.copy_(new)


class Frozen(Repeated):
    """One that has kept a batch inside."""

    def __call__(self):
        pass


class Refused:
    def __init__(self, compute, device):
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def mixed(tmp_path):
    """Molecules of one to three waters, small periodic boxes (forces alone), and frames with energies alone."""
    write_frames(tmp_path, 36, sizes=(1, 2, 3))
    write_frames(tmp_path, 24, sizes=(2, 1), name="energies.extxyz")
    rng = np.random.default_rng(5)
    boxes = [water(rng) for _ in range(30)]
    for k, atoms in enumerate(boxes):
        atoms.set_cell(rng.uniform(3.4, 5.0, size=3))
        atoms.pbc = True
        atoms.info["split"] = "valid" if k % 6 == 0 else "train"
    write(tmp_path / "boxes.extxyz", boxes)
    return tmp_path


def trainer(folder, out, recorded=None, lines=None, **parts) -> Trainer:
    """``recorded``: what stands in for the graph; None: the plain trainer."""
    shas = {"sha": sha256_of(folder / "boxes.extxyz"), "energies": sha256_of(folder / "energies.extxyz")}
    recipe = recipe_in(folder, data=SECOND.format(**shas), **{"batch": BATCH, "every": 100, **parts})
    say = (lambda line: None) if lines is None else lines.append
    work = Trainer(recipe, folder, folder / out, report=say)
    assert work.recorded is None  # on a CPU
    if recorded is not None:
        work.recorded = RecordedGradients(work, recorded)
    return work


def steps_of(work: Trainer, count: int):
    """(recorded, plain) of gradients and values, for the packs of a few steps."""
    for k in range(count):
        (pack,) = work.sampler.next(1, work.dataset.weights)
        info = StepInfo(work.recipe.stages[0], 2.0 + k, work.totals_of([pack]), None, k)
        gradients, values = work.recorded(pack, info)
        plain = work.plain_gradients({0: pack}, info)
        assert work.recorded.norm == pytest.approx(norm_of(gradients), rel=1e-12)
        yield ([g.clone() for g in gradients], values.clone()), plain


def miss_of(mine: list, other: list) -> float:
    return norm_of([a - b for a, b in zip(mine, other, strict=True)]) / norm_of(other)


@pytest.mark.parametrize(
    ("objective", "fused", "double", "forces"),
    [
        ("", None, True, "gradient"),
        ("", None, False, "gradient"),
        ("", False, True, "gradient"),  # all slots, as on a GPU
        ('[objective]\nloss = "l2mae"', False, True, "gradient"),
        ('[objective]\nloss = "huber"\nper_structure = true', False, True, "gradient"),
        ("", False, True, "painn"),
    ],
)
def test_padded_batches_give_the_gradients_of_plain_ones(mixed, monkeypatch, objective, fused, double, forces):
    monkeypatch.setattr(Attention, "fused", fused)
    work = trainer(mixed, "run", Repeated, batch=f"{BATCH}\n{objective}", model=f'forces = "{forces}"')
    close = 1e-6
    if double:
        work.model.double()
        close = 1e-12
    for (gradients, values), (plain, expected) in steps_of(work, 5):
        assert miss_of(gradients, plain) < close
        assert values.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert work.recorded.replayed == 5


@pytest.mark.parametrize("wrong", ["force_weight", "energy_weight", "offset", "counts", "index"])
def test_padding_that_counts_is_seen(mixed, monkeypatch, wrong):
    """An atom or a structure that is none in the loss, images elsewhere, errors divided by other numbers, a wrong pair:
    the first step notices, and plain launches go on.
    """
    lines, right = [], room.padded
    work = trainer(mixed, "run", Repeated, lines)

    def spoilt(batch, *arguments):
        found = right(batch, *arguments)
        if wrong == "offset":
            found["offset"][found["mask"]] *= 1.2
        elif wrong == "counts":
            found["counts"] += 1
        elif wrong == "index":
            found["index"][0, 0] = 0
        else:
            found[wrong][-1] = 0.1
            found[{"force_weight": "forces", "energy_weight": "energy"}[wrong]][-1] += 1.0
        return found

    monkeypatch.setattr(room, "padded", spoilt)
    (pack,) = work.sampler.next(1, work.dataset.weights)
    info = StepInfo(work.recipe.stages[0], 2.0, work.totals_of([pack]), None, 0)
    assert work.recorded(pack, info) is None
    assert work.recorded is None
    assert "gradients or losses differ by" in lines[-1]


PER_BLOCK = 'radial = "per-block"\ngate = "{}"\nweights = "softmax"\nsystem_input = "charge-spin"'


@pytest.mark.parametrize(
    ("model", "objective", "can"),
    [
        ("cores = [[1, 1, 0.37]]", "", True),
        (PER_BLOCK.format("qkdot"), '[objective]\nloss = "mse"', True),
        ('forces = "painn"\nweights = "smooth-softmax"', '[objective]\nloss = "huber"\nper_structure = true', True),
        ("max_neighbors = 9", "", False),
        ("long_layers = 1\nlong_upper = 5.0", "", False),
    ],
)
def test_the_recorded_step_never_waits_for_a_number(mixed, model, objective, can):
    """No graph can hold what depends on a number in a tensor; tensors without numbers (device meta) refuse it too, as
    they do tensors that lie on the CPU.
    """
    work = trainer(mixed, "run", Repeated, lines := [], model=model, batch=f"{BATCH}\n{objective}")
    assert (room.why_not_on_any_device(work) is None) == can
    (pack,) = work.sampler.next(1, work.dataset.weights)
    recorded, (stage, *_) = work.recorded, work.recipe.stages
    work.model.to("meta")
    work.device = torch.device("meta")
    recorded._begin(stage)
    recorded._put(recorded._padded(pack, work.totals_of([pack])), 2.0)
    assert recorded._record(stage) == can, lines
    assert can or "item() cannot be called on meta tensors" in lines[-1]


STAGES = """
energy_weight_late = 9.0
[[stages]]
steps = 12
warmup = 5
learning_rate = 0.01
force_weight = 3.0
mixture = [0.5, 0.1, 0.4]
"""


def test_a_training_of_two_stages_is_the_plain_one(mixed):
    """Other packs, weights and mixtures of the sources on the way; every step but the large ones by a replay."""
    works = [trainer(mixed, name, kind, steps=20, stage=STAGES) for name, kind in (("a", None), ("b", Repeated))]
    for work in works:
        work.prepare(resume=False)
        work.run()
    plain, mine = works
    assert mine.step == 32
    assert mine.recorded.replayed + mine.recorded.plain == 32
    assert mine.recorded.replayed >= 28
    for name, tensor in plain.averaged.items():
        assert torch.allclose(mine.averaged[name], tensor, rtol=0, atol=2e-5), name
    assert mine.packing.structures == plain.packing.structures
    rows = [[float(row["loss"]) for row in work.log.read()] for work in works]
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)


def resumed(folder, name: str) -> Trainer:
    """Stopped after 7 steps, and gone on with by another trainer."""
    first = trainer(folder, name, Repeated, steps=15)
    first.prepare(resume=False)
    first.run(7)
    second = trainer(folder, name, Repeated, steps=15)
    second.prepare(resume=True)
    second.run()
    return second


def test_resumed_training_is_the_same_training(mixed, monkeypatch):
    """To the bit: the batch that was made ahead is not lost."""
    whole = trainer(mixed, "whole", Repeated, steps=15)
    whole.prepare(resume=False)
    whole.run()
    second = resumed(mixed, "parts")
    for name, tensor in whole.averaged.items():
        assert torch.equal(tensor, second.averaged[name]), name

    # the wrong variant: looking ahead is drawing
    def drawn(self, count, mixture):
        found = Sampler.next(self, count, mixture)
        self._peeked = (count, list(mixture)), found, (self.state, self._packs, self._after)
        return found

    monkeypatch.setattr(Sampler, "peek", drawn)
    third = resumed(mixed, "lost")
    assert any(not torch.equal(t, third.averaged[n]) for n, t in whole.averaged.items())


def test_batches_that_do_not_fit_are_launched_plainly(mixed, monkeypatch):
    plain = trainer(mixed, "plain", steps=20)
    plain.prepare(resume=False)
    plain.run()
    around = Shape.around
    monkeypatch.setattr(Shape, "around", lambda packs: replace(around(packs), atoms=44))
    mine = trainer(mixed, "mine", Repeated, steps=20)
    mine.prepare(resume=False)
    mine.run()
    assert mine.recorded.replayed > 3
    assert mine.recorded.plain > 3
    for name, tensor in plain.averaged.items():
        assert torch.allclose(mine.averaged[name], tensor, rtol=0, atol=2e-5), name


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Refused, "by plain launches from here on: recording failed, RuntimeError: operation not permitted when"),
        (Frozen, "by plain launches from here on: recorded gradients or losses differ by"),
    ],
)
def test_training_goes_on_plainly_after_a_failure(mixed, kind, line):
    """Of the recording, and of a recording that is right for its own batch alone. No pack is lost."""
    plain = trainer(mixed, "plain", steps=10)
    plain.prepare(resume=False)
    plain.run()
    lines = []
    mine = trainer(mixed, "mine", kind, lines, steps=10)
    mine.prepare(resume=False)
    mine.run()
    assert mine.recorded is None
    assert [line in said for said in lines].count(True) == 1
    for name, tensor in plain.averaged.items():
        assert torch.allclose(mine.averaged[name], tensor, rtol=0, atol=2e-5), name


def test_the_first_steps_say_how_near_the_recorded_gradients_are(mixed):
    lines = []
    work = trainer(mixed, "run", Repeated, lines, steps=5)
    work.prepare(resume=False)
    work.run()
    (said,) = [line for line in lines if "recorded" in line]
    shape = work.recorded.shape
    assert f"for up to {shape.structures - 1} structures, {shape.atoms} atoms and {shape.slots} neighbours" in said
    assert float(said.split()[-1]) < 1e-5
    assert str(work.recorded) == "gradients of 5 steps were replayed, 0 did not fit the padding"


def test_what_cannot_be_recorded(mixed):
    """Reasons, and a refusal where recording was asked for."""
    reason = room.why_not_on_any_device
    assert reason(trainer(mixed, "a")) is None
    assert "one pack of one process" in reason(trainer(mixed, "b", batch="[batch]\natoms = 30\npacks = 2"))
    stressed = trainer(mixed, "d")
    stages = tuple(replace(stage, stress_weight=0.1) for stage in stressed.recipe.stages)
    stressed.recipe = replace(stressed.recipe, stages=stages)
    assert "stress" in reason(stressed)
    assert "max_neighbors" in reason(trainer(mixed, "e", model="max_neighbors = 9"))
    assert "rotate" in reason(trainer(mixed, "f", batch=f"{BATCH}\n[objective]\nrotate = true"))
    recipe = recipe_in(mixed)
    with pytest.raises(InputError, match="a CUDA graph needs an NVIDIA GPU, and the device is cpu; leave out --record"):
        Trainer(recipe, mixed, mixed / "x", record=True)
    assert not (mixed / "x").exists()
    assert Trainer(recipe, mixed, mixed / "x", record=False).recorded is None
