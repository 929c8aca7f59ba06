"""The pretraining study: splits by molecule, means over seeds, recipes that can be built, one chain of it."""

import json
from types import SimpleNamespace

import click
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from analysis.scd.condition import NONE, OTHER, OWN, losses
from analysis.scd.label_properties import chosen, labeller
from analysis.scd.molecules import dynamics
from analysis.scd.probe import atoms_mean, ridge_error
from analysis.scd.study import BEGINNINGS, FORCES, draw, few_labels, geometries, main, splits, summary, with_target
from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.systems import Systems
from omnicalc.training.denoising import NoiseSettings, denoise, graph_of, noise_of
from omnicalc.training.objectives import build_objective
from omnicalc.training.recipe import RECIPES, read_recipe


def test_no_molecule_is_in_two_parts():
    frames = [Atoms("H", info={"molecule": f"m{k % 40}"}) for k in range(200)]
    parts = splits(frames)
    names = {key: {a.info["molecule"] for a in part} for key, part in parts.items()}
    for one, other in (("pool", "valid"), ("pool", "test"), ("valid", "test")):
        assert not names[one] & names[other]
    assert len(parts["pool"]) + len(parts["valid"]) + len(parts["test"]) == 200
    with pytest.raises(InputError, match="ten different"):
        splits(frames[:3])


def test_labels_are_those_that_frames_have():
    """Frames of a second file know other properties, and no forces."""
    frames = invented(10) + [Atoms("CHON", info={"molecule": "m1", "gap_dft": 5.0})]
    assert with_target(frames, FORCES) == with_target(frames, "gap") == frames[:20]
    assert with_target(frames, "gap_dft") == few_labels(frames, "gap_dft", 300) == frames[20:]
    few = few_labels(frames, "gap", 7)
    assert len(few) == 7 and few == few_labels(frames[:20], "gap", 7)  # the second file changes no draw of the first
    with pytest.raises(InputError, match="no frame has 'homo'; the frames know dipole_moment, gap, gap_dft and forces"):
        few_labels(frames, "homo", 7)


def test_no_molecule_of_the_test_is_denoised():
    frames = invented(20)
    parts = splits(frames)
    assert geometries(parts, []) == parts["pool"]
    more = [Atoms("CHON", info={"molecule": f"m{k}"}) for k in range(30)]
    judged = {a.info["molecule"] for key in ("valid", "test") for a in parts[key]}
    allowed = geometries(parts, more)
    assert len(judged) == 6 and allowed == [a for a in more if a.info["molecule"] not in judged] and len(allowed) == 24
    with pytest.raises(InputError, match="frame 30 has no info 'molecule'"):
        geometries(parts, [*more, Atoms("H")])


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


def test_beginnings_run_alone_and_are_put_together(tmp_path):
    file, more, out = tmp_path / "labelled.extxyz", tmp_path / "more.extxyz", tmp_path / "out"
    write(file, invented(20), format="extxyz")
    write(more, invented(30), format="extxyz")

    def study(*words):
        short = ["--quick", "--target", "gap", "--target", FORCES, "--pretraining-steps", "2", "--steps", "2"]
        main.main([str(file), "--unlabelled", str(more), "--out", str(out), *short, *words], standalone_mode=False)

    with pytest.raises(click.UsageError, match="'cgt' is not one of 'scratch', 'denoising', 'scd'"):
        study("--only", "cgt")
    study("--only", "scd")
    note = out / "seed0" / "forces-scd.json"
    assert not (out / "summary.csv").exists() and json.loads(note.read_text())["error"] > 0
    log = (out / "seed0" / "gap-scd" / "log.csv").read_text().splitlines()
    used = (out / "data" / "geometries.extxyz").read_text()
    assert used.count("split=train") == 48 and "forces" not in used  # two frames of each of 30 molecules, 6 judged on
    assert "property_mae" in log[0] and log[1].startswith("0,")  # before training, for it began at pretrained weights
    note.write_text(json.dumps({**json.loads(note.read_text()), "error": 123.0}))
    study()
    assert "0,scd,forces,123.0" in (out / "runs.csv").read_text()  # what was there was not done again
    assert len((out / "summary.csv").read_text().splitlines()) == 1 + 2 * len(BEGINNINGS)
    assert (out / "summary.png").stat().st_size > 5000
    out = tmp_path / "asked_twice"
    study("--only", "denoising", "--self-conditioned")
    asked = {target: f"self_conditioned = {word}" for target, word in (("gap", "true"), (FORCES, "false"))}
    for target, line in asked.items():
        assert line in (out / "seed0" / f"{target}-denoising" / "weights" / "card.toml").read_text()


def test_ridge_regression_finds_what_features_hold():
    """A smooth function of one of three features; of features that do not hold it, nothing can be learned."""
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 3)) for n in (300, 60, 60)]
    labels = [np.sin(2 * f[:, 1]) for f in features]
    others = [rng.normal(size=f.shape) for f in features]
    assert ridge_error(features, labels) < 0.05 < 0.5 < ridge_error(others, labels)


def test_features_are_means_over_the_atoms_of_each_structure():
    frames = invented(3)
    config = {"channels": 16, "layers": 1, "n_basis": 8, "gives": "embeddings", "heads": ["none"]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("scd", config).double().eval()
    found = atoms_mean(frames, SimpleNamespace(model=network))
    systems = Systems.from_atoms(frames[4])
    x, v = network.node_features(graph_of(network, systems, torch.zeros_like(systems.positions)), None)
    wanted = torch.cat([x.mean(0), v.norm(dim=1).mean(0)]).detach().numpy()
    assert found.shape == (6, 32) and np.abs(found[4] - wanted).max() < 1e-12


def test_losses_by_condition_are_those_of_the_objective():
    config = {"channels": 16, "layers": 1, "n_basis": 8, "gives": "embeddings", "heads": ["none"]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("scd", config).eval()
        network.noise_normalizer.update(0.04 * torch.randn(50, 3))
    frames, settings = invented(8), NoiseSettings(clean_noise=0.0)
    systems = Systems.from_atoms(frames)
    noise = noise_of(systems, settings.corrupt_noise, torch.Generator().manual_seed(3))
    corrupted, clean = graph_of(network, systems, noise), graph_of(network, systems, 0.0 * noise)
    target = network.noise_normalizer.normalised(noise.float())
    found = losses(network, frames, settings, seed=3)
    assert found[OWN] == pytest.approx(denoise(network, corrupted, noise, clean).loss.item(), rel=1e-5)
    assert found[NONE] == pytest.approx(denoise(network, corrupted, noise).loss.item(), rel=1e-5)
    with torch.no_grad():
        x, v = network.node_features(corrupted, network.embed(clean).roll(1, 0))
        other = (network.noise_head(x, v)[1] - target).square().mean().item()
    assert found[OTHER] == pytest.approx(other, rel=1e-5)


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
    (alone,) = frames_of("c1cc(C)oc1", seed=1, steps=0)
    assert np.array_equal(alone.positions, relaxed.positions)


def test_properties_by_density_functional_theory():
    """Without the density fitting and the coarse grid they are the same to 10 meV and 0.01 D."""
    pytest.importorskip("pyscf")
    from pyscf import dft, gto

    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], info={"molecule": "water"})
    info = labeller("b3lyp/6-31g")(atoms).info
    mole = gto.M(atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis="6-31g", verbose=0)
    field = dft.RKS(mole, xc="b3lyp").run()
    homo, lumo = (field.mo_energy[k] * units.Hartree for k in (4, 5))  # ten electrons
    assert info["homo_dft"] == pytest.approx(homo, abs=0.01) and info["lumo_dft"] == pytest.approx(lumo, abs=0.01)
    assert info["gap_dft"] == pytest.approx(lumo - homo, abs=0.01)
    assert info["dipole_moment_dft"] == pytest.approx(np.linalg.norm(field.dip_moment(verbose=0)), abs=0.01)
    assert info["molecule"] == "water" and "gap" not in info


def test_frames_to_label_are_always_the_same():
    frames = [Atoms(f"H{k % 5 + 1}", info={"k": k}) for k in range(40)]
    few = chosen(frames, largest=3, sample=5)
    assert len(few) == 5 and max(map(len, few)) <= 3 and few == chosen(frames, largest=3, sample=5)
    assert chosen(frames, None, None) == frames
    with pytest.raises(InputError, match="there are 8 such frames"):
        chosen(frames, largest=1, sample=9)
