"""A toy data set: waters (and hydroxide) with springs between all pairs, energies and exact forces, and its recipe."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from omnicalc.files import sha256_of
from omnicalc.training.example import Batch, Totals, collate
from omnicalc.training.recipe import Recipe, read_recipe
from omnicalc.training.trainer import Trainer

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
l_max = 1
layers = 1
values = ["first-order"]
n_basis = 6
radial_width = 8
embedding_scale = 2.0
{model}
[optimiser]
ema = 0.9
validate_every = {every}
checkpoint_every = 10
{optimiser}
{batch}
[[stages]]
steps = {steps}
warmup = 5
learning_rate = 0.01
{stage}
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
{data}
"""
REST = {(0, 1): 0.96, (0, 2): 0.96, (1, 2): 1.52}


def water(rng, copies: int = 1) -> Atoms:
    """``copies`` waters far from each other, with springs inside each: energy and exact forces."""
    shape = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    place = [shape + [9.0 * k, 0, 0] for k in range(copies)]
    atoms = Atoms("OHH" * copies, np.concatenate(place) + rng.normal(scale=0.08, size=(3 * copies, 3)))
    energy, forces = -460.0 * copies, np.zeros((3 * copies, 3))
    for first in range(0, 3 * copies, 3):
        for (a, b), rest in REST.items():
            i, j = first + a, first + b
            d = atoms.positions[i] - atoms.positions[j]
            r = np.linalg.norm(d)
            energy += 5.0 * (r - rest) ** 2
            forces[i] -= 10.0 * (r - rest) * d / r
            forces[j] += 10.0 * (r - rest) * d / r
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def write_frames(folder: Path, count: int = 24, sizes=(1,), name: str = "frames.extxyz") -> None:
    rng = np.random.default_rng(0)
    frames = [water(rng, sizes[k % len(sizes)]) for k in range(count)]
    for k, atoms in enumerate(frames):
        atoms.info["split"] = "valid" if k % 6 == 0 else "train"
        atoms.info["config_type"] = f"water{len(atoms) // 3}"
    write(folder / name, frames)


def recipe_in(folder: Path, steps: int = 60, every: int = 20, **parts: str) -> Recipe:
    file = folder / "recipe.toml"
    blanks = {"model": "", "optimiser": "", "batch": "", "stage": "", "data": ""}
    sha = sha256_of(folder / "frames.extxyz")
    file.write_text(RECIPE.format(steps=steps, every=every, sha=sha, **{**blanks, **parts}))
    return read_recipe(file)


def trainer(folder: Path, out: str = "run", **parts) -> Trainer:
    return Trainer(recipe_in(folder, **parts), folder, folder / out, report=lambda line: None)


def two_sizes(folder: Path) -> tuple[Trainer, Batch, Totals]:
    """A trainer and a batch of one water and of two far apart: 3 and 6 atoms."""
    write_frames(folder, 12, sizes=(1, 2))
    work = trainer(folder)
    entries = [next(e for e in work.dataset.sources[0].train if e.n_atoms == n) for n in (3, 6)]
    examples = [work.dataset.example(0, e) for e in entries]
    return work, collate(examples, work.dataset.cutoff), Totals.of(examples)
