"""The pretraining study: splits by molecule, means over seeds, recipes that can be built, one chain of it."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from analysis.scd.molecules import dynamics
from analysis.scd.study import BEGINNINGS, draw, main, splits, summary
from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.training.objectives import build_objective
from omnicalc.training.recipe import RECIPES, read_recipe


def test_no_molecule_is_in_two_parts():
    frames = [Atoms("H", info={"molecule": f"m{k % 40}"}) for k in range(200)]
    parts = splits(frames, labelled=30)
    names = {key: {a.info["molecule"] for a in part} for key, part in parts.items()}
    for one, other in (("pool", "valid"), ("pool", "test"), ("valid", "test")):
        assert not names[one] & names[other]
    assert names["few"] <= names["pool"] and len(parts["few"]) == 30
    assert len(parts["pool"]) + len(parts["valid"]) + len(parts["test"]) == 200
    with pytest.raises(InputError, match="ten different"):
        splits(frames[:3], labelled=2)


def test_summary_and_figure(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"seed": seed, "beginning": kind, "target": target, "error": error + 0.01 * rng.normal()}
        for seed in range(3)
        for kind, error in zip(BEGINNINGS, (1.0, 0.9, 0.8, 0.7), strict=True)
        for target in ("gap", "forces")
    ]
    table = summary(rows)
    scd = next(r for r in table if (r["target"], r["beginning"]) == ("gap", "scd"))
    errors = [r["error"] for r in rows if (r["target"], r["beginning"]) == ("gap", "scd")]
    assert scd["mae"] == pytest.approx(np.mean(errors)) and scd["seeds"] == 3
    assert scd["stderr"] == pytest.approx(np.std(errors, ddof=1) / 3**0.5)
    assert scd["gain_percent"] == pytest.approx(20, abs=3)
    draw(tmp_path / "x.png", table)
    assert (tmp_path / "x.png").stat().st_size > 5000


@pytest.mark.parametrize("name, gives", [("scd-pretrained", "embeddings"), ("scd-organics", "energies")])
def test_shipped_recipes(name, gives):
    recipe = read_recipe(RECIPES / f"{name}.toml")
    model = build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)})
    assert model.config.gives == gives and model.conservative
    build_objective(recipe.objective).check(model)


def invented(n_molecules: int) -> list[Atoms]:
    """Two frames each of small molecules with labels that mean nothing."""
    rng, frames = np.random.default_rng(0), []
    for k in range(2 * n_molecules):
        positions = np.arange(4)[:, None] * [1.1, 0.2, 0.0] + rng.normal(scale=0.05, size=(4, 3))
        atoms = Atoms("CHON", positions)
        atoms.info = {"molecule": f"m{k // 2}", "gap": rng.normal(5), "dipole_moment": rng.normal(2), "charge": 0}
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(-4), forces=rng.normal(size=(4, 3)))
        frames.append(atoms)
    return frames


def test_chains_run_alone_and_are_put_together(tmp_path):
    file, out = tmp_path / "labelled.extxyz", tmp_path / "out"
    write(file, invented(20), format="extxyz")

    def study(*words):
        short = ["--quick", "--property", "gap", "--pretraining-steps", "2", "--steps", "2"]
        main.main([str(file), "--out", str(out), *short, *words], standalone_mode=False)

    with pytest.raises(InputError, match="scd-seed7; the chains are scratch-seed0"):
        study("--only", "scd-seed7")
    study("--only", "scd-seed0")
    note = out / "seed0" / "forces-scd.json"
    assert not (out / "summary.csv").exists() and json.loads(note.read_text())["error"] > 0
    log = (out / "seed0" / "gap-scd" / "log.csv").read_text().splitlines()
    assert "property_mae" in log[0] and log[1].startswith("0,")  # before training, for it began at pretrained weights
    note.write_text(json.dumps({**json.loads(note.read_text()), "error": 123.0}))
    study()
    assert "0,scd,forces,123.0" in (out / "runs.csv").read_text()  # what was there was not done again
    assert len((out / "summary.csv").read_text().splitlines()) == 1 + 2 * len(BEGINNINGS)
    assert (out / "summary.png").stat().st_size > 5000


def test_dynamics_of_an_oscillator_are_warm():
    """x has variance kT/k. The wrong variant, a spring twice as stiff, has half of it."""
    k = 200.0  # kcal/mol/Å^2: a period of 29 fs for hydrogen's mass
    atoms = Atoms("H3000", np.zeros((3000, 3)))
    x = dynamics(atoms, lambda x: -k * x, seed=0, steps=200)
    assert np.var(x) == pytest.approx(units.kB * 300 / (k * units.kcal / units.mol), rel=0.06)


def test_molecules_of_bodies_and_groups(tmp_path):
    pytest.importorskip("rdkit")
    from analysis.scd.molecules import frames_of

    relaxed, warm = frames_of("c1cc(C)oc1", seed=1)
    assert relaxed.get_chemical_formula() == "C5H6O" and relaxed.info["molecule"] == "c1cc(C)oc1"
    apart = relaxed.get_all_distances() - warm.get_all_distances()
    assert 0.02 < np.abs(apart).max() < 0.8  # moved, and still together
    assert np.allclose(frames_of("c1cc(C)oc1", seed=1)[1].positions, warm.positions)
