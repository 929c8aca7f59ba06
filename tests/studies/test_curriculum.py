"""The learning curve: every training begins at random weights on one source; test molecules judge."""

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from analysis.curriculum.ion_pairs import SETS, errors, interaction_energies, of_potential, of_xtb, with_parts
from analysis.curriculum.ion_pairs import main as ion_pairs
from analysis.curriculum.ions_apart import frames as ions_apart
from analysis.curriculum.learning_curve import case_recipe, draw, main
from analysis.curriculum.long_range import recipe_of
from omnicalc import load_potential
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError
from omnicalc.models import build_model
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
    assert case.optimiser.matrices == BASE.optimiser.matrices
    assert case_recipe(BASE, "ubio-dft", 45, 300, None, "muon").optimiser.matrices == "muon"


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


SCANS = Path(__file__).parents[2] / "data" / "ion-pairs"


def coulomb(structures: list[Atoms]) -> np.ndarray:
    """Point charges at the ions, less one eV per atom: what an exact potential would do far out."""
    charges, energies = {"Na": 1, "Mg": 2, "Cl": -1}, []
    for atoms in structures:
        q, x = [charges[s] for s in atoms.symbols], atoms.positions
        pairs = [(k, l) for k in range(len(q)) for l in range(k)]
        energies.append(-len(q) + sum(14.399645 * q[k] * q[l] / np.linalg.norm(x[k] - x[l]) for k, l in pairs))
    return np.array(energies)


def test_interaction_energies_are_free_of_the_zero_of_energy():
    frames = [Atoms("ClMgCl", [[-r, 0, 0], [0, 0, 0], [r, 0, 0]]) for r in (3.0, 6.0)]
    assert [a.info["charge"] for a in with_parts(frames[0])] == [0, -1, 2, -1]
    found = interaction_energies(coulomb, frames)
    wanted = [14.399645 * (-4 / r + 1 / (2 * r)) * 96.48533 for r in (3.0, 6.0)]
    assert found == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(InputError, match="one water and ions of Na, Mg, Cl are known here"):
        with_parts(Atoms("NaF", [[0, 0, 0], [2, 0, 0]]))


def test_errors_leave_out_what_has_no_energy():
    found = errors(np.array([1.0, np.nan, 5.0]), np.array([0.0, 7.0, 0.0]))
    assert found == {"frames": 2, "mean_kJmol": 0.0, "mae_kJmol": 3.0, "bias_kJmol": 3.0, "mae_without_bias_kJmol": 2.0}


def test_a_potential_is_asked_with_the_charge_of_every_part():
    """Water and sodium by ubio-s2 and by GFN2-xTB, which it learned from: the geometry matters alike."""
    frames = list(open_frames(SCANS / "h2o_na_aimd.extxyz.gz"))[:400:40]
    by_model = interaction_energies(of_potential(load_potential("ubio-s2"), None), frames)
    assert np.std(by_model - np.array([a.info["int_kJmol"] for a in frames])) < 8
    pytest.importorskip("tblite")
    by_xtb = interaction_energies(of_xtb, frames)
    assert np.std(by_xtb - by_model) < 8 and abs(by_xtb.mean() + 96) < 25


def test_table_of_all_sets(tmp_path):
    ion_pairs.main(["ubio-s2", "--data", str(SCANS), "--out", str(tmp_path), "--most", "3"], standalone_mode=False)
    rows = list(csv.DictReader((tmp_path / "ion_pairs.csv").open()))
    assert [row["set"] for row in rows] == list(SETS) and {row["frames"] for row in rows} == {"3"}
    assert (tmp_path / "ion_pairs.png").stat().st_size > 5000


def test_ions_apart_are_alone_and_far():
    frames = ions_apart(per_pair=12, seed=0)
    assert [len(a) for a in frames if a.info["config_type"] == "alone"] == [1, 1, 1, 1, 3]
    assert max(abs(a.info["charge"]) for a in frames) == 2 and {a.info["split"] for a in frames} == {"train", "valid"}
    pair = [a.get_distance(0, 1) for a in frames if a.info["system"] == "na cl"]
    assert len(pair) == 12 and pair[0] == pytest.approx(2.6) and pair[-1] == pytest.approx(12.0)
    water = [a for a in frames if a.info["system"] == "mg water"]
    assert water[0].get_distance(0, 3) == pytest.approx(1.9)
    assert all(a.get_distance(0, 1) == pytest.approx(0.97, abs=0.02) for a in water)


def test_with_and_without_long_range_differ_in_nothing_else():
    local, long = (recipe_of(BASE, long, 60) for long in (False, True))
    assert replace(long, model=local.model, tag=local.tag) == local != long
    assert local.data == BASE.data and local.start == "ubio-s3:wide"
    networks = [build_model(r.family, {**r.model, "heads": list(r.heads)}).state_dict() for r in (local, long)]
    assert set(networks[0]) < set(networks[1]) and not networks[1]["add_long.weight"].any()


def test_forces_on_a_pair_that_is_pulled_apart():
    """Nothing is off by its own label; forces that miss the pair's pull are."""
    pytest.importorskip("tblite", exc_type=ImportError)
    pytest.importorskip("rdkit")
    from analysis.curriculum.pull_apart import droplet, pair_error
    from omnicalc.data.labels.xtb import Xtb

    class Right(Calculator):
        implemented_properties = ["energy", "forces"]
        without_pull = False

        def calculate(self, atoms=None, properties=(), changes=()):
            super().calculate(atoms, properties, changes)
            label = Xtb()(self.atoms)
            forces = label.forces.copy()
            if self.without_pull:
                forces[:2] = 0.0
            self.results = {"energy": label.energy, "forces": forces}

    atoms = droplet("na cl water*2", 3.6, seed=0)
    assert atoms.info["pair"] == [0, 1] and atoms.get_distance(0, 1) == pytest.approx(3.6, abs=0.01)
    assert atoms.info["charge"] == 0 and len(atoms) == 8
    right, wrong = Right(), Right()
    wrong.without_pull = True
    assert pair_error(right, atoms) < 1e-6
    pull = float(np.abs(atoms.get_forces()[:2]).max())
    assert pull > 0.3 and pair_error(wrong, atoms) == pytest.approx(pull)


def test_bundled_weights_let_ions_go_of_each_other():
    """Version 0.2 does so in a wall; later ones do not."""
    pytest.importorskip("tblite", exc_type=ImportError)
    pytest.importorskip("rdkit")
    from analysis.curriculum.pull_apart import droplet, pair_error
    from omnicalc import OmniCalc

    drops = [droplet("na cl water*9", distance, seed=1) for distance in (3.8, 4.0, 4.2)]
    errors = {
        name: max(pair_error(OmniCalc(name, head="gfn2-xtb"), drop) for drop in drops)
        for name in ("ubio-s2", "ubio-s3:wide", "ubio-s2:small@0.2")
    }
    assert max(errors["ubio-s2"], errors["ubio-s3:wide"]) < 5.0 < errors["ubio-s2:small@0.2"], errors
