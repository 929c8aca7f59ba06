"""OMNIMOL and its backbone PET v2 against reference vectors: every case of ``<golden-dir>/omnimol``.

``pet_*`` were made by the release; ``formulas_*`` by plain NumPy formulas, and test formulas only.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from omnicalc.errors import WeightsError
from omnicalc.models.omnimol import from_published
from omnicalc.models.omnimol.body import Adapter
from omnicalc.models.omnimol.molecule import centred
from omnicalc.models.omnimol.pairs import PairScalar, cosines, envelope, pair_features, upper
from omnicalc.models.omnimol.transformer import nearest
from omnicalc.training.lora import low_rank
from tests import omnimol_equations

FAMILY = "omnimol"
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--golden-dir") / FAMILY
    for name, kind in (("case", "pet_"), ("formulas", "formulas_")):
        if name in metafunc.fixturenames:
            cases = sorted(p.parent for p in folder.glob("*/config.json") if p.parent.name.startswith(kind))
            metafunc.parametrize(name, cases, ids=[c.name for c in cases])


class Case:
    """One golden folder of the release: settings, tensors, clouds, and what the release computes for them."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "weights.safetensors")
        self.given = {k: torch.from_numpy(v) for k, v in np.load(folder / "input.npz").items()}
        self.wanted = np.load(folder / "output.npz")

    def model(self, dtype):
        return from_published(self.config, self.tensors).to(dtype).eval()

    def body(self, model, dtype, time: float = 1.0):
        """Features and mask; ``time`` is a factor on the given times."""
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.given.items()}
        extra = {k: given.get(k) for k in ("cond", "pid", "add_info")}
        if given.get("time") is not None:
            extra["time"] = given["time"] * time
        with torch.no_grad():
            return model.body(given["x"], given.get("mask"), **extra)

    def outputs(self, dtype, model=None) -> dict:
        model = self.model(dtype) if model is None else model
        features, mask = self.body(model, dtype)
        found = {"body": features}
        with torch.no_grad():
            if "f64_body_time0" in self.wanted:
                found["body_time0"] = self.body(model, dtype, time=0.0)[0]
            if model.classifier is not None:
                found["classifier"] = model.classifier(features, mask)
            if model.generator is not None:
                config = model.config
                n_particles = features.shape[1] - config.num_tokens - config.extra_tokens
                label = self.given.get("label") if config.num_classes > 1 else None
                found["generator"] = model.generator(features, mask, n_particles, label)
        return {k: v for k, v in found.items() if f"f64_{k}" in self.wanted}

    def off(self, found: dict) -> float:
        """Largest deviation from the release's float64 outputs."""
        return max(np.abs(v.numpy() - self.wanted[f"f64_{k}"]).max() for k, v in found.items())


@DTYPES
def test_outputs(case, dtype):
    golden = Case(case)
    found = golden.outputs(dtype)
    assert {"body", "classifier", "generator"} & set(found)
    assert golden.off(found) < (1e-9 if dtype == torch.float64 else 1e-5)
    if dtype == torch.float32:
        for name, value in found.items():
            assert np.abs(value.numpy() - golden.wanted[f"f32_{name}"]).max() < 1e-5


def test_a_wrong_constant_is_noticed(case):
    """The check is sharp: gains of the norms that are off by 1e-7 fail it."""
    golden = Case(case)
    wrong = golden.model(torch.float64)
    for module in wrong.modules():
        if hasattr(module, "alpha"):
            module.alpha.data *= 1 + 1e-7
    assert golden.off(golden.outputs(torch.float64, wrong)) > 1e-9


def test_intermediate_values(case):
    golden = Case(case)
    model, seen = golden.model(torch.float64), {}
    body, mask = model.body, golden.given["mask"]

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    body.embed.register_forward_hook(keep("input_block"))
    body.local_physics.mlp.register_forward_hook(keep("local_mlp"))
    for l, block in enumerate(body.local_physics.in_blocks):
        block.register_forward_hook(keep(f"local_att{l}"))
    for l, block in enumerate(body.in_blocks):
        block.register_forward_hook(keep(f"body_att{l}"))
    for l, block in enumerate(getattr(body, "out_blocks", ())):
        block.register_forward_hook(keep(f"body_out_att{l}"))
    for name in ("cond", "time"):
        if hasattr(body, f"{name}_embed"):
            getattr(body, f"{name}_embed").register_forward_hook(keep(f"{name}_token"))
    golden.body(model, torch.float64)
    x, real = golden.given["x"].double(), mask.unsqueeze(-1).double()
    with torch.no_grad():
        seen["local_block"] = body.local(x, mask)
        if hasattr(body, "interaction"):
            seen["interaction_bias"] = body.pair_bias(x, real).flatten(0, 1)
    index, neighbor = body.neighbors(x, mask)
    index, neighbor = index[mask], neighbor[mask]
    wanted = golden.wanted["f64_mid_local_indices"][mask.numpy()][:, : index.shape[1]]
    assert (index.numpy() == wanted)[neighbor.numpy()].all()
    seen["input_block"] = seen["input_block"] * real
    names = [n for n in golden.wanted if n.startswith("f64_mid_") and n != "f64_mid_local_indices"]
    assert {n.removeprefix("f64_mid_") for n in names} <= set(seen)
    for name in names:
        mine, theirs = seen[name.removeprefix("f64_mid_")].numpy(), golden.wanted[name]
        if name.startswith(("f64_mid_local_att", "f64_mid_local_mlp")):  # padded particles are not meaningful
            rows, slots = mask.flatten().numpy(), neighbor.numpy()
            mine, theirs = mine[rows][slots], theirs[rows][:, : slots.shape[1]][slots]
        tolerance = 1e-9 if theirs.dtype == np.float64 else 2e-6
        assert np.abs(mine - theirs).max() < tolerance, name


def test_padding_does_not_matter(case):
    """More padding gives the same features; a mask that forgets a particle does not."""
    golden = Case(case)
    model = golden.model(torch.float64)
    before = golden.body(model, torch.float64)[0]
    n_front = before.shape[1] - golden.given["x"].shape[1]
    for key in ("x", "mask", "pid", "add_info"):
        value = golden.given[key]
        golden.given[key] = torch.cat([value, value.new_zeros(len(value), 3, *value.shape[2:])], 1)
    after = golden.body(model, torch.float64)[0][:, :-3]
    assert (before - after).abs().max() < 1e-12
    golden.given["mask"][0, 0] = False
    assert (golden.body(model, torch.float64)[0][0, n_front + 1] - before[0, n_front + 1]).abs().max() > 1e-9


def test_mismatched_tensors_are_named(case):
    golden = Case(case)
    tensors = dict(golden.tensors)
    tensors["body.token"] = tensors["body.token"][:, :-1]
    tensors["body.surprise"] = tensors.pop("body.norm.alpha")
    with pytest.raises(WeightsError) as caught:
        from_published(golden.config, tensors)
    for part in ("body.token has shape", "unexpected body.surprise", "missing body.norm.alpha (1,)"):
        assert part in str(caught.value)
    with pytest.raises(WeightsError, match="unknown PET settings: depth"):
        from_published({**golden.config["model_kwargs"], "depth": 3}, golden.tensors)


class Formulas:
    """One folder of formulas; float64 throughout."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.given = {k: torch.from_numpy(v) for k, v in np.load(folder / "input.npz").items()}
        self.wanted = np.load(folder / "output.npz")
        self.molecules = range(len(self.config["structures"]))
        c = self.config
        self.sigmas = torch.linspace(c["sigma_min"], c["sigma_max"], c["n_rbf"], dtype=torch.float64)

    def geometry(self, k: int):
        positions = self.given[f"mol{k}_pos"]
        delta = positions.unsqueeze(1) - positions
        return delta, ~torch.eye(len(positions), dtype=torch.bool)

    def pair_scalar(self, k: int):
        embed = self.given[f"mol{k}_embed"]
        scalar = PairScalar(embed.shape[1], self.config["g_hidden"]).double()
        names = {"fc1.weight": "g_w1", "fc1.bias": "g_b1", "fc2.weight": "g_w2", "fc2.bias": "g_b2"}
        scalar.load_state_dict({ours: self.given[theirs] for ours, theirs in names.items()})
        left, right = scalar.halves(embed)
        return scalar.join(left.unsqueeze(1), right).detach()

    def close(self, name: str, found) -> bool:
        return np.allclose(np.asarray(found), self.wanted[name], rtol=1e-12, atol=1e-13)


def test_pairs(formulas):
    golden = Formulas(formulas)
    for k in golden.molecules:
        (delta, keep), g = golden.geometry(k), golden.pair_scalar(k)
        assert golden.close(f"mol{k}_g", g)
        assert golden.close(f"mol{k}_pair", pair_features(delta, keep, g, golden.sigmas))
        core = golden.config["soft_core"]
        soft = pair_features(delta, keep, g, golden.sigmas, core=core)
        assert golden.close(f"mol{k}_pair_soft", soft[..., 4:10])
        invariant = pair_features(delta, keep, g, golden.sigmas, with_vector=False)
        assert golden.close(f"mol{k}_pair", torch.cat([delta, invariant], -1))
        r = delta.norm(dim=-1)
        assert golden.close(f"mol{k}_envelope", keep * envelope(r, golden.config["envelope_cutoff"]))
        # wrong variants: another core, powers of the softened distance
        softer = pair_features(delta, keep, g, golden.sigmas, core=core + 0.1)
        assert not golden.close(f"mol{k}_pair_soft", softer[..., 4:10])
        assert not golden.close(f"mol{k}_pair", soft)


def test_neighbors_and_angles(formulas):
    golden = Formulas(formulas)
    for k in golden.molecules:
        delta, others = golden.geometry(k)
        n, most = len(delta), golden.config["K"]
        index, mask = nearest(delta.norm(dim=-1), others, most)
        room = most - index.shape[1]
        pad = torch.nn.functional.pad
        padded = pad(index.masked_fill(~mask, -1), (0, room), value=-1)
        assert golden.close(f"mol{k}_knn", padded) and golden.close(f"mol{k}_knn_mask", pad(mask, (0, room)))
        bonds = delta[torch.arange(n).unsqueeze(1), index]
        cos = pad(cosines(bonds, mask), (0, room, 0, room))
        assert golden.close(f"mol{k}_cos", cos) and golden.close(f"mol{k}_cos_upper", upper(cos))
        farthest = nearest(-delta.norm(dim=-1), others, most)[0]  # a wrong variant
        assert not golden.close(f"mol{k}_knn", pad(farthest, (0, room), value=-1))


def test_standards_and_loss(formulas):
    golden = Formulas(formulas)
    given, batch = golden.given, golden.given["batch"]
    n = len(given["e_dft"])
    numbers = torch.cat([given[f"mol{k}_z"] for k in golden.molecules])
    positions = torch.cat([given[f"mol{k}_pos"] for k in golden.molecules])
    centres = torch.split(centred(positions, batch, n), [len(given[f"mol{k}_z"]) for k in golden.molecules])
    assert all(golden.close(f"mol{k}_centred", centres[k]) for k in golden.molecules)
    delta = omnimol_equations.formation_energy(given["e_dft"], given["atom_energies"], numbers, batch)
    scales = omnimol_equations.Scales.per_molecule(delta, given["f_true"])
    assert golden.close("delta_e", delta)
    assert golden.close("mu", scales.energy_shift) and golden.close("sigma", scales.energy_scale)
    assert golden.close("e_standardised", scales.energies(delta))
    weights = golden.config["lambda_e"], golden.config["lambda_f"]
    losses = omnimol_equations.molecule_losses(
        given["e_pred"], given["e_true"], given["f_pred"], given["f_true"], batch, *weights
    )
    assert golden.close("loss_per_molecule", losses) and golden.close("loss", losses.mean())
    assert not golden.close("sigma", delta.std())  # a wrong variant: the sample's deviation
    assert not golden.close("loss", (losses * torch.bincount(batch)).sum() / len(batch))  # mean over atoms


def test_low_rank_and_adapter(formulas):
    golden = Formulas(formulas)
    given = golden.given
    lora = given["lora_w"], given["lora_a"], given["lora_b"]
    assert golden.close("lora_w_new", low_rank(*lora, float(given["lora_alpha"])))
    assert not golden.close("lora_w_new", low_rank(*lora, float(given["lora_alpha"]) + 1e-6))
    adapter = Adapter(*reversed(given["ad_w1"].shape)).double()
    names = {"alpha": "ad_alpha"} | {f"mlp.fc{i}.{p}": f"ad_{p[0]}{i}" for i in (1, 2) for p in ("weight", "bias")}
    adapter.load_state_dict({ours: given[theirs] for ours, theirs in names.items()})
    with torch.no_grad():
        assert golden.close("ad_y", adapter(given["ad_x"]))
        adapter.alpha += 1e-6
        assert not golden.close("ad_y", adapter(given["ad_x"]))
