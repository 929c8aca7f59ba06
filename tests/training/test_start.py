"""What weights that a training begins with become: every old head says what it said, wherever its place now is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from omnicalc.card import read_card
from omnicalc.errors import InputError
from omnicalc.gradients import geometry
from omnicalc.models import build_model
from omnicalc.neighbors import neighbors
from omnicalc.registry import load_potential
from omnicalc.systems import Systems
from omnicalc.training import start
from omnicalc.training.fine_tune import FineTune, fine_tune_recipe
from omnicalc.training.recipe import DataSource, Optimiser, Recipe, Stage
from omnicalc.training.trainer import Trainer
from tests.tiny_weights import write_weights
from tests.training.toy import water, write_frames

OLD = ("one", "two", "three")
E2FORMER = {
    "elements": [1, 8], "channels": 8, "l_max": 1, "layers": 1, "attention_heads": 2, "query_width": 2,
    "value_multiplicity": 2, "n_basis": 4, "radial_width": 4, "values": ["first-order"],
}  # fmt: skip
ALLSCAIP = {
    "preset": "tiny", "width": 8, "layers": 1, "attention_heads": 2, "n_radial": 4, "order_degrees": 2,
    "direction_degrees": 2, "angular": [2, 2], "max_elements": 10, "forces": "direct",
}  # fmt: skip
OMNIMOL = {"size": "tiny", "width": 16, "attention_heads": 2, "layers": 1, "n_rbf": 5}
SCD = {"channels": 16, "layers": 1, "attention_heads": 4, "n_basis": 8, "cutoff": 4.0}
PROPERTIES = {**SCD, "gives": "properties", "energy_pool": "mean"}
DENOISER = {"backbone": "e2former", "settings": E2FORMER}
FAMILIES = {  # family, its settings, objective
    "e2former": ("e2former", E2FORMER, "energy-forces"),
    "allscaip": ("allscaip", ALLSCAIP, "energy-forces"),
    "omnimol": ("omnimol", OMNIMOL, "energy-forces"),
    "omnimol-direct": ("omnimol", {**OMNIMOL, "forces": "direct"}, "energy-forces"),
    "scd": ("scd", SCD, "energy-forces-denoising"),
    "properties": ("scd", PROPERTIES, "property"),
    "denoiser": ("denoiser", DENOISER, "self-conditioned-denoising"),
}
families = pytest.mark.parametrize("kind", FAMILIES)


@pytest.fixture(autouse=True)
def no_curve(monkeypatch):
    monkeypatch.setattr("omnicalc.training.trainer.draw_curve", lambda *_: None)


def old_model(folder, kind):
    """Weights of three heads in ``folder``, and their network."""
    family, settings, _ = FAMILIES[kind]
    write_weights(folder, heads=dict.fromkeys(OLD, ("H", "O")), family=family, settings=settings)
    return load_potential(folder, device="cpu").model


def recipe(folder, kind, trained: str, copied: str = "", **changes) -> Recipe:
    """One step, at a rate that changes nothing, of one head; the others are kept behind it."""
    family, settings, objective = FAMILIES[kind]
    labels = {"energies": "denoising" not in objective or "energy" in objective, "forces": "energy" in objective}
    return Recipe(
        name="toy", tag="a", version="0.1", family=family, summary="", licence="", reference_note="",
        model=settings, optimiser=Optimiser(ema=0.5), stages=(Stage(steps=1, learning_rate=1e-9, warmup=1),),
        data=(DataSource(head=trained, level_of_theory="toy", shards="frames.extxyz", **labels),),
        reference_prior={"H": -10.0, "O": -400.0}, objective={"name": objective}, start=str(folder / "old"),
        copy_heads={trained: copied} if copied else {}, kept_heads=tuple(h for h in OLD if h != trained), **changes,
    )  # fmt: skip


def trained(folder, made: Recipe):
    """The network after the recipe's step, and the heads in their new order."""
    write_frames(folder, 6)
    work = Trainer(made, folder, folder / "run", report=lambda line: None)
    work.prepare(resume=False)
    work.run()
    card = read_card(folder / "run" / "best" / "card.toml")
    model = build_model(card.family, card.config)
    model.load_state_dict(work.averaged)
    return model, [head.name for head in card.heads]


def said(model, head: int) -> torch.Tensor:
    """What a head says of a water: energies, or property, and direct forces."""
    network = getattr(model, "backbone", model).float().eval()
    systems = Systems.from_atoms(water(np.random.default_rng(3)))
    made = geometry(network, systems, neighbors(systems, network.cutoff), torch.float32, False)
    graph = made.graph(torch.tensor([head]))
    if getattr(network.config, "gives", "energies") == "properties":
        return network.values(graph).detach()
    found = network(graph)
    forces = () if found.forces is None else (found.forces.flatten(),)
    return torch.cat([found.energies, *forces]).detach()


def kept(old, new, names, begun=()) -> bool:
    """Whether every head says what it said, and a new one what the head it began as says."""
    begun = dict(begun)
    pairs = [(said(old, OLD.index(begun.get(name, name))), said(new, k)) for k, name in enumerate(names)]
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)


@families
def test_heads_in_another_order(tmp_path, kind):
    old = old_model(tmp_path / "old", kind)
    assert not torch.allclose(said(old, 0), said(old, 1), rtol=1e-2)
    new, names = trained(tmp_path, recipe(tmp_path, kind, "three"))
    assert names == ["three", "one", "two"] and kept(old, new, names)
    assert not kept(old, new, OLD)


@families
def test_a_new_head(tmp_path, kind):
    """It begins as the one it copies; the others are as they were."""
    old = old_model(tmp_path / "old", kind)
    new, names = trained(tmp_path, recipe(tmp_path, kind, "mine", "two"))
    assert names == ["mine", *OLD] and kept(old, new, names, {"mine": "two"})
    assert not kept(old, new, names, {"mine": "one"})


@pytest.mark.parametrize("kind", ["e2former", "denoiser"])
@pytest.mark.parametrize("elements", [[8, 1], [1, 6, 8], [17, 8, 1, 11]])
def test_elements_in_another_order_and_more_of_them(tmp_path, kind, elements):
    """What is known of an element goes to its place, and what is not begins at random and is named."""
    old = old_model(tmp_path / "old", kind)
    settings = {**E2FORMER, "elements": elements}
    model = {**DENOISER, "settings": settings} if kind == "denoiser" else settings
    new, names = trained(tmp_path, replace(recipe(tmp_path, kind, "three"), model=model))
    assert kept(old, new, names)
    report = read_card(tmp_path / "run" / "best" / "card.toml").training["start"]
    assert ("type_embedding.weight of Na" in report) == (11 in elements) and "another shape" not in report


def test_a_kept_head_needs_rows_of_its_elements(tmp_path):
    old_model(tmp_path / "old", "e2former")
    made = replace(recipe(tmp_path, "e2former", "three"), model={**E2FORMER, "elements": [8]})
    with pytest.raises(InputError, match="kept_heads: 'one' knows H, which elements in .model. lacks"):
        Trainer(made, tmp_path, tmp_path / "run", report=lambda line: None)


@pytest.mark.parametrize("kind", ["e2former", "omnimol-direct"])
@pytest.mark.parametrize("head", [("three", ""), ("mine", "two")], ids=["order", "new"])
def test_tables_that_are_not_known_to_have_rows_of_heads(tmp_path, monkeypatch, kind, head):
    """The wrong variant: heads speak for one another, or begin at random."""
    old = old_model(tmp_path / "old", kind)
    monkeypatch.setattr(type(old), "head_rows", {})
    new, names = trained(tmp_path, recipe(tmp_path, kind, *head))
    assert not kept(old, new, names, {"mine": "two"})


def test_heads_may_be_named_like_other_modules(tmp_path):
    """blocks.0.nodes of AllScAIP is no head."""
    old = old_model(tmp_path / "old", "allscaip")
    new, names = trained(tmp_path, recipe(tmp_path, "allscaip", "nodes", "two"))
    assert kept(old, new, names, {"nodes": "two"})


def test_fine_tuning_leaves_committees_behind(tmp_path):
    """They were fitted to features that change; the report names them, and users make another."""
    settings = {**E2FORMER, "committee": 2}
    write_weights(tmp_path / "old", heads={"one": ("H", "O")}, settings=settings)
    write_frames(tmp_path, 6)
    wish = FineTune(str(tmp_path / "old"), tmp_path / "frames.extxyz", head="mine", replay="none", length=1)
    made = fine_tune_recipe(wish)
    assert made.model["committee"] == 0  # not left out: runs that began with cards of "committee = 0" go on
    work = Trainer(made, None, tmp_path / "run", report=lambda line: None)
    assert "1 of the start are not used: committee" in work.start_report
    assert not hasattr(work.model, "committee")


def test_committees_go_with_their_heads():
    """A row that no head of the start has is named in the report; what has another number of rows is not copied."""
    rows = {"heads": list(OLD), "committee": 2}
    model = build_model("e2former", {**E2FORMER, **rows})
    tensors = {name: torch.randn_like(tensor.float()) for name, tensor in model.state_dict().items()}
    heads = ("three", "mine", "one")
    model = build_model("e2former", {**E2FORMER, **rows, "heads": list(heads)})
    match = start.copy_matching(model, heads, tensors, OLD, {})
    assert torch.equal(model.committee[0], tensors["committee"][2]) and not model.committee[1].any()
    assert "committee of mine" in match.new and "committee" in match.copied
    tensors["committee"] = tensors["committee"][:2]
    assert "committee" in start.copy_matching(model, heads, tensors, OLD, {}).other_shape
