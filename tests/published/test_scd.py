"""Import of published SCD checkpoints: settings from the file, energies refused, embeddings those of the release."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io import read, write
from safetensors.torch import load_file

from omnicalc import OmniCalc, SCDCalculator, denoise, embed, load_potential, properties
from omnicalc.errors import InputError, WeightsError
from omnicalc.models import build_model
from omnicalc.potential import Head, Potential
from omnicalc.weights_home import weights_home
from tests.command import omnicalc
from tests.conftest import GOLDEN

CASE = GOLDEN / "scd" / "ct_molecules"


def checkpoint(path, **changes):
    """A training checkpoint as the release writes it, of the golden case's network."""
    tensors = load_file(CASE / "weights.safetensors")
    state = {f"model.{k}": v for k, v in tensors.items()} | {f"ema_model.{k}": v + 1 for k, v in tensors.items()}
    settings = json.loads((CASE / "config.json").read_text())["model_kwargs"]
    content = {
        "state_dict": state,
        "hyper_parameters": {**settings, "model": "CET", "lr": 5e-4, "model_config": "configs/model_configs/scd.yaml"},
        "epoch": 3,
        "global_step": 800,
        **changes,
    }
    torch.save(content, path)
    return path


def structures() -> list[Atoms]:
    given = np.load(CASE / "input.npz")
    parts = [given["batch"] == k for k in range(len(given["natoms"]))]
    return [Atoms(given["z"][p], given["pos"][p]) for p in parts]


def test_import_embed_and_refusal(tmp_path):
    file = checkpoint(tmp_path / "last.ckpt")
    said = omnicalc("models", "import", file, "--as", "scd:pcq")
    assert "ema_model.*: 142" in said and len(said.splitlines()) < 10
    potential = load_potential("scd:pcq", dtype="float64")
    wanted = np.load(CASE / "output.npz")
    assert np.abs(embed(structures(), potential) - wanted["f64_uncond_mol_emb"]).max() < 1e-9
    assert np.abs(embed(structures(), "scd:pcq") - wanted["f64_uncond_mol_emb"]).max() < 1e-4
    again = embed(structures(), potential, conditioned=True)
    assert np.abs(again - wanted["f64_selfcond_mol_emb"]).max() < 1e-9
    for refuse in (
        lambda: SCDCalculator("scd:pcq").get_potential_energy(molecule("H2O")),
        lambda: OmniCalc(potential).get_forces(molecule("H2O")),
        lambda: omnicalc("sp", "examples/water.xyz", "--model", "scd:pcq"),
        lambda: omnicalc("md", "examples/water.xyz", "--model", "scd:pcq", "--steps", "1", "--out", tmp_path / "run"),
    ):
        with pytest.raises(InputError, match="pretrained only"):
            refuse()
    assert not (tmp_path / "run").exists()


def test_denoise_takes_predicted_noise_off(tmp_path):
    omnicalc("models", "import", checkpoint(tmp_path / "last.ckpt"), "--as", "scd:pcq")
    potential = load_potential("scd:pcq", dtype="float64")
    frames, normalizer = structures(), potential.model.noise_normalizer
    predicted = torch.from_numpy(np.load(CASE / "output.npz")["f64_uncond_noise_pred"])
    wanted = normalizer.displacement(predicted).numpy()
    cleaned = denoise(frames, potential)
    moved = np.concatenate([a.positions - b.positions for a, b in zip(frames, cleaned, strict=True)])
    assert np.abs(moved - wanted).max() < 1e-9
    assert denoise(frames[0], potential, steps=2).positions.shape == frames[0].positions.shape
    assert np.abs(denoise(frames[0], potential, steps=2).positions - cleaned[0].positions).max() > 0


def test_denoise_keeps_held_atoms_where_they_are():
    held, free = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    held.set_constraint(FixAtoms([0, 4]))
    held, free = denoise([held, free], "scd:pretrained", steps=2)
    moved = np.abs(held.positions - molecule("CH3CH2OH").positions).max(1)
    assert (moved[[0, 4]] == 0).all() and (np.delete(moved, [0, 4]) > 0).all()
    assert (free.positions != molecule("CH3CH2OH").positions).any(1).all()


def test_settings_without_a_record_are_the_published_ones(tmp_path):
    """Sizes come from the tensors; the heads' number, which leaves no trace there, from the published files."""
    file = checkpoint(tmp_path / "last.ckpt", hyper_parameters={"model_config": "configs/model_configs/scd.yaml"},
                      global_step=None)  # fmt: skip
    omnicalc("models", "import", file, "--as", "scd:other")
    config = load_potential("scd:other").model.config
    assert (config.attention_heads, config.layers, config.channels, config.vector_prenorm) == (8, 3, 24, "component")
    assert not config.final_whitening and config.max_neighbors == 32


@pytest.mark.parametrize("case", ["et_ethanol", "cgt_molecules"])
def test_other_backbones_are_imported(tmp_path, case):
    folder = GOLDEN / "scd" / case
    config, wanted = json.loads((folder / "config.json").read_text()), np.load(folder / "output.npz")
    tensors = {f"model.{k}": v for k, v in load_file(folder / "weights.safetensors").items()}
    settings = {**config["model_kwargs"], "model": config["model"]}
    file = checkpoint(tmp_path / "last.ckpt", state_dict=tensors, hyper_parameters=settings)
    omnicalc("models", "import", file, "--as", "scd:other")
    given = np.load(folder / "input.npz")
    parts = np.split(np.arange(len(given["z"])), np.cumsum(given["natoms"])[:-1])
    found = embed([Atoms(given["z"][p], given["pos"][p]) for p in parts], load_potential("scd:other", dtype="float64"))
    assert np.abs(found - wanted["f64_uncond_mol_emb"]).max() < 5e-6


def test_a_fine_tuned_checkpoint_gives_its_property(tmp_path):
    """As the release's trainer writes one of QM9: mean and std of shape (1,), the target in its settings."""
    file = checkpoint(tmp_path / "last.ckpt")
    content = torch.load(file)
    for key in ("model.mean", "model.std"):
        content["state_dict"][key] = content["state_dict"][key].reshape(1)
    content["hyper_parameters"] |= {"pretraining": False, "dataset": "QM9", "dataset_arg": "homo"}
    torch.save(content, file)
    said = omnicalc("models", "import", file, "--as", "scd:homo")
    assert "QM9 homo, in the unit of that data" in said and "omnicalc.properties" in said
    potential = load_potential("scd:homo", dtype="float64")
    wanted = np.load(CASE / "output.npz")["f64_uncond_y"][:, 0]
    assert properties(structures(), potential, head="energy") == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(InputError, match="these weights give properties"):
        SCDCalculator("scd:homo").get_potential_energy(molecule("H2O"))
    content["hyper_parameters"] |= {"set_head_agg": "mean", "self_cond": True}
    torch.save(content, file)
    omnicalc("models", "import", file, "--as", "scd:mean")
    config = load_potential("scd:mean").model.config
    assert config.energy_pool == "mean-plus-one" and config.self_conditioned


def test_no_neighbour_is_left_out_where_the_release_left_out_none(tmp_path):
    """Its molecular neighbour search keeps them all, the general one, for crystals too, the nearest."""
    for general, cap in ((False, None), (True, 32)):
        file = checkpoint(tmp_path / "last.ckpt")
        content = torch.load(file)
        content["hyper_parameters"] |= {"allow_periodic": general, "noise_in_loader": general}
        torch.save(content, file)
        omnicalc("models", "import", file, "--as", f"scd:general-{general}")
        assert load_potential(f"scd:general-{general}").model.config.max_neighbors == cap


def test_references_of_fewer_elements_than_the_network_has_rows(tmp_path):
    file = checkpoint(tmp_path / "last.ckpt")
    content, prior = torch.load(file), "model.prior_model.0"
    for shape, message in (((), "atomref.weight has shape"), ((10,), "atomref.weight has shape"), ((10, 1), None)):
        table = torch.ones(shape)
        content["state_dict"] |= {f"{prior}.atomref.weight": table, f"{prior}.initial_atomref": table}
        content["hyper_parameters"]["pretraining"] = False
        torch.save(content, file)
        if message:
            with pytest.raises(WeightsError, match=message):
                omnicalc("models", "import", file, "--as", "scd:few")
    omnicalc("models", "import", file, "--as", "scd:few")
    assert properties(molecule("CH4"), "scd:few", head="energy").shape == (1,)
    with pytest.raises(InputError, match="does not know element Si"):
        properties(molecule("SiH4"), "scd:few", head="energy")


def test_a_model_file_without_settings_is_refused(tmp_path):
    (tmp_path / "scd.yaml").write_text("- CET\n")
    file = checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(WeightsError, match="scd.yaml: a table of settings is needed"):
        omnicalc("models", "import", file, "--config", tmp_path / "scd.yaml", "--as", "scd:pcq")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"state_dict": {}}, "no tensors|none at all"),
        ({"state_dict": {"model.head": torch.ones(1)}}, "no SCD checkpoint"),
        ({"hyper_parameters": {"model": "CFrad"}}, "do not fit"),
        ({"hyper_parameters": ["CET"]}, "'hyper_parameters' is a list"),
        ({"hyper_parameters": {"model": ["CET"]}}, r"model = \['CET'\] given; supported are CET"),
        ({"hyper_parameters": {"emb_agg": ["mean"]}}, r"emb_agg = \['mean'\] is not supported; one of sum"),
        ({"hyper_parameters": {"cutoff_upper": "5.0"}}, "cutoff = '5.0' given; a number above 0"),
        ({"hyper_parameters": {"p_dropcond": "0.2"}}, "condition_dropout = '0.2' given; a probability below 1"),
        ({"hyper_parameters": {"vec_prenorm": "false"}}, "vec_prenorm = 'false' given; true or false is needed"),
        ({"hyper_parameters": {"allow_node_mask": True}}, "allow_node_mask = True is not supported"),
    ],
)
def test_other_files_are_refused_and_leave_nothing(tmp_path, changes, message):
    file = checkpoint(tmp_path / "last.ckpt", **changes)
    with pytest.raises(WeightsError, match=message):
        omnicalc("models", "import", file, "--as", "scd:pcq")
    assert not weights_home().exists() or not list(weights_home().iterdir())


@pytest.mark.parametrize(
    "name, tensor, message",
    [
        ("embedding.weight", torch.zeros(118), r"embedding.weight has shape \(118,\), no matrix"),
        ("embedding.weight", torch.zeros(118, 24, 1), r"has shape \(118, 24, 1\), no matrix"),
        ("attention_layers.0.dk_proj.weight", torch.zeros(32), r"dk_proj.weight has shape \(32,\), the config"),
        (
            "attention_layers.0.q_proj.weight",
            torch.ones(24, 24, dtype=torch.int64),
            "q_proj.weight holds int64, floating",
        ),
        (
            "attention_layers.0.q_proj.weight",
            torch.full((24, 24), 1e300, dtype=torch.float64),
            "in float32, values that are not finite",
        ),
    ],
)
def test_tensors_of_another_form_are_refused(tmp_path, name, tensor, message):
    file = checkpoint(tmp_path / "last.ckpt")
    content = torch.load(file)
    content["state_dict"][f"model.rep_model.{name}"] = tensor
    torch.save(content, file)
    with pytest.raises(WeightsError, match=message):
        omnicalc("models", "import", file, "--as", "scd:pcq")


def test_embedding_needs_the_heads():
    with pytest.raises(InputError, match="no embedding"):
        embed(molecule("H2O"), "ubio-s3")


@pytest.mark.parametrize("call", [embed, denoise])
def test_elements_never_seen_are_refused(call):
    with pytest.raises(InputError, match="does not know element Si; it was trained on H, C, N, O, Na, Mg"):
        call([molecule("H2O"), molecule("SiH4")], "scd:pretrained")
    for wrong in ("frames.xyz", None):
        with pytest.raises(InputError, match="one ase.Atoms or a list"):
            call(wrong, "scd:pretrained")


def test_heads_that_are_none_of_a_property_are_refused():
    for name, head, gives in (("scd:pretrained", "none", "embeddings"), ("scd", "pbe-d3/def2-svp", "energies")):
        with pytest.raises(InputError, match=f"gives {gives}, no properties"):
            properties(molecule("H2O"), name, head=head)
    with pytest.raises(InputError, match="steps = 1.5"):
        denoise(molecule("H2O"), "scd:pretrained", steps=1.5)


def test_embed_command_draws_a_map(tmp_path):
    omnicalc("models", "import", checkpoint(tmp_path / "last.ckpt"), "--as", "scd:pcq")
    frames = structures() * 3
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
        atoms.info["value"] = float(k)
    write(tmp_path / "frames.xyz", frames)
    words = ["embed", tmp_path / "frames.xyz", "--model", "scd:pcq", "--out", tmp_path / "map"]
    omnicalc(*words, "--colour", "value", "--untrained")
    arrays = np.load(tmp_path / "map" / "embeddings.npz")
    assert arrays["embeddings"].shape == (12, 24) and arrays["coordinates"].shape == (12, 2)
    assert np.abs(arrays["embeddings"] - embed(read(tmp_path / "frames.xyz", ":"), "scd:pcq")).max() < 1e-6
    assert (tmp_path / "map" / "latent_map.png").stat().st_size > 5000
    with pytest.raises(InputError, match="not empty"):
        omnicalc(*words)
    frames[2].info["value"] = float("nan")
    write(tmp_path / "gap.xyz", frames)
    with pytest.raises(InputError, match="frame 2 has no finite number under 'value'"):
        omnicalc("embed", tmp_path / "gap.xyz", *words[2:-1], tmp_path / "other", "--colour", "value")
    with pytest.raises(InputError, match="no finite number under 'colour'"):
        omnicalc(*words[:-1], tmp_path / "other", "--colour", "colour")


def test_two_structures_are_embedded_without_a_map(tmp_path):
    write(tmp_path / "two.xyz", [molecule("H2O"), molecule("CH4")])
    said = omnicalc("embed", tmp_path / "two.xyz", "--out", tmp_path / "out")
    assert "no map, which needs 3 structures" in said and not (tmp_path / "out" / "latent_map.png").exists()
    arrays = np.load(tmp_path / "out" / "embeddings.npz")
    assert np.abs(arrays["embeddings"] - embed(read(tmp_path / "two.xyz", ":"), "scd:pretrained")).max() < 1e-6


@pytest.mark.parametrize("key", ["embeddings", "atoms", "coordinates", "file", "allow_pickle"])
def test_colours_do_not_take_the_place_of_what_is_written(tmp_path, key):
    frames = [molecule("H2O") for _ in range(3)]
    for atoms in frames:
        atoms.info[key] = 1.0
    write(tmp_path / "three.xyz", frames)
    with pytest.raises(InputError, match=f"--colour {key}: embeddings.npz needs this name"):
        omnicalc("embed", tmp_path / "three.xyz", "--out", tmp_path / "out", "--colour", key)
    assert not (tmp_path / "out").exists()


def test_properties_are_heads_with_references_and_no_energies():
    """A property head: the network's sum and a reference per element; forces and energies of it are refused."""
    config = {"heads": ["homo", "gap"], "gives": "properties", "channels": 16, "layers": 1, "energy_pool": "mean"}
    heads = [Head("homo", {1: 0.5, 8: -1.0}), Head("gap", {1: 0.0, 8: 0.0})]
    potential = Potential(build_model("scd", config).double().eval(), heads)
    water = molecule("H2O")
    homo, gap = (properties([water, water], potential, head=name) for name in ("homo", "gap"))
    assert homo.shape == (2,) and homo[0] == pytest.approx(homo[1], abs=1e-12) and abs(homo[0] - gap[0]) > 1e-6
    shifted = Potential(potential.model, [Head("homo", {1: 0.75, 8: -1.0}), heads[1]])
    assert properties(water, shifted, head="homo")[0] == pytest.approx(homo[0] + 0.5)
    with pytest.raises(InputError, match="properties .homo, gap., no energies"):
        OmniCalc(potential).get_potential_energy(water)
    with pytest.raises(InputError, match="has: homo, gap"):
        properties(water, potential, head="lumo")
    with pytest.raises(InputError, match="does not know element C; it was trained on H, O"):
        properties(molecule("CH4"), potential, head="gap")
