"""The learning curve: every training begins at random weights on one source; test molecules judge."""

import csv
import hashlib

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from analysis.curriculum.learning_curve import case_recipe, draw, main
from omnicalc.errors import InputError
from omnicalc.training.recipe import find_recipe, read_recipe

BASE = read_recipe(find_recipe("ubio-s3-wide"))
SHORT = """
name = "short"
tag = "t"
version = "1"
family = "e2former"
summary = "for tests"
licence = "MIT"
reference_note = "least squares"
start = "ubio-s2"
[model]
elements = [1, 8]
channels = 8
layers = 1
values = ["first-order"]
l_max = 1
attention_heads = 2
query_width = 2
value_multiplicity = 2
cutoff = 4.0
n_basis = 4
radial_width = 8
forces = "gradient"
[batch]
structures = 2
[[stages]]
steps = 50
energy_weight = 0.1
[[data]]
name = "waters"
head = "none"
level_of_theory = "none"
file = "waters.extxyz"
sha256 = "{digest}"
"""


def test_a_case_begins_at_random_weights_on_one_source():
    case = case_recipe(BASE, "ubio-dft", 45, 300, None)
    assert case.start == "" and not case.copy_heads and case.steps == 300 and case.model == BASE.model
    assert [(s.label, s.limit) for s in case.data] == [("ubio-dft", 45)] and case.heads == ("wb97m-d3bj/def2-svp",)
    assert case.stages[0].learning_rate == BASE.stages[-1].learning_rate
    with pytest.raises(InputError, match="--source xtb: the sources of the recipe are water, "):
        case_recipe(BASE, "xtb", None, 300, None)


def test_curve_of_made_up_waters(tmp_path):
    """Two trainings and weights beside them; what is finished is not trained again."""
    rng, frames = np.random.default_rng(0), []
    for k in range(20):
        x = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + rng.normal(scale=0.05, size=(3, 3))
        atoms = Atoms("OHH", x, info={"split": ("train", "train", "valid", "test")[k % 4], "origin": "md300"})
        atoms.calc = SinglePointCalculator(atoms, energy=-400 + rng.normal(), forces=rng.normal(size=(3, 3)))
        frames.append(atoms)
    file, recipe, out = tmp_path / "waters.extxyz", tmp_path / "short.toml", tmp_path / "out"
    write(file, frames)
    recipe.write_text(SHORT.format(digest=hashlib.sha256(file.read_bytes()).hexdigest()))

    def curve():
        words = ["--source", "waters", "--data", str(tmp_path), "--out", str(out), "--frames", "4", "--steps", "3"]
        main.main([str(recipe), *words, "--beside", str(out / "scratch-4" / "best")], standalone_mode=False)
        return list(csv.DictReader((out / "learning_curve.csv").open()))

    first, all_, beside = curve()
    assert (first["frames"], all_["frames"]) == ("4", "10") and first["forces"] != all_["forces"]
    assert beside["forces"] == first["forces"] == first["forces_of_dynamics"]
    trained = (out / "scratch-all" / "state.pt").stat().st_mtime_ns
    assert curve()[1] == all_ and (out / "scratch-all" / "state.pt").stat().st_mtime_ns == trained
    assert (out / "learning_curve.png").stat().st_size > 5000


def test_figure_without_dynamics(tmp_path):
    rows = [{"frames": n, "forces": 300 / n**0.3, "forces_of_dynamics": float("nan")} for n in (45, 91)]
    draw(tmp_path / "x.png", rows, [{"weights": "ubio-s3:wide", "forces": 20.0}])
    assert (tmp_path / "x.png").stat().st_size > 5000
