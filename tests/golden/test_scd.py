"""SCD against the released model: every case of ``<golden-dir>/scd`` in float64 and float32, and its training rules."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from safetensors.torch import load_file

from omnicalc.errors import WeightsError
from omnicalc.gradients import forces_from_edges
from omnicalc.models.graph import Graph
from omnicalc.models.scd import from_published
from omnicalc.models.scd.angular import angles_of
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from omnicalc.training import adam
from omnicalc.training.cell_tiling import tiled
from omnicalc.training.denoising import denoise
from omnicalc.training.weight_decay import decays_in_scd

FAMILY = "scd"
PASSES = ("uncond", "cond", "selfcond", "rotated_uncond")
VALUES = ("x", "vec", "mol_emb", "noise_pred", "atom_outputs", "y")
TRAINING = "pretrain_step"


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--golden-dir") / FAMILY
    every = sorted(p.parent for p in folder.glob("*/config.json"))
    steps = [c for c in every if "grad_norm" in json.loads((c / "config.json").read_text())]
    for name, cases in (("case", [c for c in every if c not in steps]), ("step", steps)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases, ids=[c.name for c in cases])
    if "arrays" in metafunc.fixturenames:
        files = sorted(folder.glob("*/arrays.npz"))
        metafunc.parametrize("arrays", files, ids=[f.parent.name for f in files])


class Case:
    """One golden folder: published settings and tensors, a batch of structures, and what the release computes."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "weights.safetensors")
        self.wanted = np.load(folder / "output.npz")
        self.given = np.load(folder / "input.npz")

    def model(self, dtype=torch.float64, **settings):
        return from_published({**self.config, **settings}, self.tensors).to(dtype).eval()

    def systems(self, positions=None) -> Systems:
        given = self.given
        positions = given["pos"] if positions is None else positions
        n = len(given["natoms"])
        cells = given["cell"] if "cell" in given else np.zeros((n, 3, 3))
        pbc = given["pbc"] if "pbc" in given else np.zeros((n, 3), dtype=bool)
        parts = [given["batch"] == k for k in range(n)]
        return Systems.from_atoms(
            [Atoms(given["z"][p], positions[p], cell=cells[k], pbc=pbc[k]) for k, p in enumerate(parts)]
        )

    def graph(self, model, positions=None, gradient=False) -> Graph:
        systems = self.systems(positions)
        found = neighbors(systems, model.cutoff)
        vectors = found.vectors(systems.positions, systems.cell, systems.system).to(model.std.dtype)
        head = torch.zeros(systems.n_systems, dtype=torch.int64)
        return Graph.build(systems, found, vectors.requires_grad_(gradient), head)

    def condition(self, name: str, dtype) -> torch.Tensor | None:
        if name == "cond":
            return torch.from_numpy(self.given["cond"]).to(dtype)
        return torch.from_numpy(self.wanted["f64_uncond_mol_emb"]).to(dtype) if name == "selfcond" else None

    def positions(self, name: str) -> np.ndarray | None:
        return self.given["pos"] @ self.wanted["rotation_matrix"].T if name.startswith("rotated") else None

    def compute(self, model, name: str) -> dict[str, torch.Tensor]:
        graph, condition = self.graph(model, self.positions(name)), self.condition(name, model.std.dtype)
        edges = model.edges(graph)
        x, v = model.features(edges, condition)
        return {
            "x": x,
            "vec": v,
            "mol_emb": model.embedding_head(x, graph.system, edges.n_systems),
            "noise_pred": model.noise_head(x, v)[1],
            "atom_outputs": model.atom_outputs(x, v, graph.head[graph.system]).unsqueeze(1),
            "y": model.values(graph, condition).unsqueeze(1),
        }

    def forces(self, model, name: str) -> np.ndarray:
        graph = self.graph(model, self.positions(name), gradient=True)
        y = model.values(graph, self.condition(name, model.std.dtype))
        (gradient,) = torch.autograd.grad(y.sum(), graph.vectors)
        return forces_from_edges(gradient, graph.index).double().numpy()

    @property
    def tolerance(self) -> float:
        """CGT: the release rounds its Bessel constants to float32."""
        return 5e-6 if self.config["model"] == "CFrad" else 1e-9

    def arrays(self, dtype: str, kinds) -> list[tuple[str, str]]:
        """(pass, array) of this precision."""
        return [(p, k) for p in PASSES for k in kinds if f"{dtype}_{p}_{k}" in self.wanted]


def close(mine, wanted, absolute: float, relative: float = 0.0) -> bool:
    mine = np.asarray(mine.detach().double() if isinstance(mine, torch.Tensor) else mine)
    return bool((np.abs(mine - wanted) <= absolute + relative * np.abs(wanted)).all())


def test_float64(case):
    golden = Case(case)
    model, found = golden.model(), golden.arrays("f64", VALUES)
    assert len(found) >= len(VALUES)
    with torch.no_grad():
        results = {name: golden.compute(model, name) for name in {p for p, _ in found}}
    for name, key in found:
        assert close(results[name][key], golden.wanted[f"f64_{name}_{key}"], golden.tolerance), (name, key)


def test_float32(case):
    golden = Case(case)
    model, found = golden.model(torch.float32), golden.arrays("f32", VALUES)
    with torch.no_grad():
        results = {name: golden.compute(model, name) for name in {p for p, _ in found}}
    whitened = golden.config["model"] == "CFrad" or golden.config["model_kwargs"]["layernorm_on_vec"]
    for name, key in found:
        factor = 10 if whitened and key in ("vec", "noise_pred", "atom_outputs", "y") else 1
        wanted = golden.wanted[f"f32_{name}_{key}"].astype(float)
        assert close(results[name][key], wanted, factor * 1e-5, factor * 1e-4), (name, key)


@pytest.mark.parametrize("detached", [True, False], ids=["released", "exact"])
def test_forces(case, detached):
    golden = Case(case)
    model = golden.model(detach_modulation=detached)
    found = golden.arrays("f64", ["forces" if detached else "forces_exact"])
    assert found
    for name, key in found:
        wanted = golden.wanted[f"f64_{name}_{key}"]
        # the stored forces are those of constants rounded to float32 (see the README of the cases)
        assert close(golden.forces(model, name), wanted, golden.tolerance * max(1, np.abs(wanted).max())), name
        if golden.config["model"] != "ET":  # the other kind of forces is noticed
            other = golden.forces(golden.model(detach_modulation=not detached), name)
            assert not close(other, wanted, 1e-6 + golden.tolerance * np.abs(wanted).max())


def test_masked_readout(case):
    golden = Case(case)
    if "atom_mask" not in golden.given:
        pytest.skip("this case has no mask")
    model = golden.model()
    mask = torch.from_numpy(golden.given["atom_mask"])
    wanted = golden.wanted["f64_masked_uncond_y"][:, 0]
    with torch.no_grad():
        assert close(model.values(golden.graph(model), atom_mask=mask), wanted, golden.tolerance)
        assert not close(model.values(golden.graph(model)), wanted, 1e-6)


def test_potential_gives_the_same(case):
    """Energies through :class:`Potential`, and the released forces as those of a potential that says what they are."""
    golden = Case(case)
    if golden.config["model"] == "CFrad":
        pytest.skip("CGT gives no energies as a potential")
    for detached, key in ((True, "forces"), (False, "forces_exact")):
        model = golden.model(detach_modulation=detached)
        potential = Potential(model, [Head("energy", dict.fromkeys(range(119), 0.0))])
        systems = golden.systems()
        found = potential(systems, neighbors(systems, potential.cutoff), head="energy")
        assert close(found.energy, golden.wanted["f64_uncond_y"][:, 0], golden.tolerance)
        wanted = golden.wanted[f"f64_uncond_{key}"]
        assert close(found.forces, wanted, golden.tolerance * max(1, np.abs(wanted).max()))
        assert potential.conservative == (not detached or golden.config["model"] == "ET")


def test_intermediates(case):
    golden = Case(case)
    model, wanted = golden.model(), golden.wanted
    name = "cond" if any(k.startswith("f64_cond_mid_") for k in wanted) else "uncond"
    seen = {}
    for k, layer in enumerate(model.rep_model.attention_layers):
        layer.register_forward_hook(
            lambda module, inputs, output, k=k: seen.update(
                {f"layer{k}_x_in": inputs[0], f"layer{k}_vec_in": inputs[1]}
                | {f"layer{k}_dx": output[0], f"layer{k}_dvec": output[1]}
            )
        )
    embedding = getattr(model.rep_model, "neighbor_embedding_module", None) or model.rep_model.neighbor_embedding
    embedding.register_forward_hook(lambda m, i, output: seen.update(x_after_neighbor_embedding=output))
    with torch.no_grad():
        golden.compute(model, name)
    for key, value in seen.items():
        stored = wanted[f"f64_{name}_mid_{key}"]
        rounding = 1e-6 * np.abs(stored).max() if stored.dtype == np.float32 else 0.0
        assert close(value, stored, golden.tolerance + rounding), key


def test_edges(case):
    """Our edges, truncation included, are the released ones: same atoms, same vectors."""
    golden = Case(case)
    model = golden.model()
    edges = model.edges(golden.graph(model))
    if "edge_index" not in golden.given:
        wanted = {k: golden.wanted[f"f64_uncond_mid_{k}"] for k in ("edge_index", "edge_distance")}
        assert sorted(zip(*wanted["edge_index"].tolist(), strict=True)) == sorted(
            zip(edges.source.tolist(), edges.target.tolist(), strict=True)
        )
        return
    wanted = _edge_set(*golden.given["edge_index"], golden.given["edge_distance_vec"])
    assert _edge_set(edges.source, edges.target, edges.vectors) == wanted
    uncapped = model.config.max_neighbors is not None and replace(model.config, max_neighbors=2)
    model.config = uncapped  # the wrong variant: another cap
    other = model.edges(golden.graph(model))
    assert _edge_set(other.source, other.target, other.vectors) != wanted


def _edge_set(source, target, vectors) -> set:
    rounded = np.round(np.asarray(vectors, dtype=float), 4) + 0.0
    return set(zip(np.asarray(source).tolist(), np.asarray(target).tolist(), map(tuple, rounded.tolist()), strict=True))


def test_angles(case):
    golden = Case(case)
    prefix = next((f"f64_{p}_mid_geo_" for p in PASSES if f"f64_{p}_mid_geo_angle" in golden.wanted), None)
    if prefix is None:
        pytest.skip("no angles in this case")
    model = golden.model()
    edges = model.edges(golden.graph(model))
    found = angles_of(edges)
    pair = torch.stack([edges.source, edges.target], 1)
    mine = torch.cat([pair[found.edge_kj], pair[found.edge_ji]], 1).tolist()
    stored = golden.wanted[f"{prefix[:-4]}edge_index"].T
    stored = stored[stored[:, 0] != stored[:, 1]]
    kj, ji = (stored[golden.wanted[f"{prefix}idx_{e}"]] for e in ("kj", "ji"))
    theirs = np.concatenate([kj, ji], 1).tolist()
    for name in ("angle", "torsion"):
        values = getattr(found, name).detach().tolist()
        ours = {tuple(key): value for key, value in zip(mine, values, strict=True)}
        wanted = golden.wanted[f"{prefix}{name}"]
        assert len(ours) == len(theirs)
        assert max(abs(ours[tuple(key)] - value) for key, value in zip(theirs, wanted, strict=True)) < 1e-7


@pytest.mark.parametrize("wrong", ["cutoff_power", "condition", "weights"])
def test_a_wrong_network_is_noticed(case, wrong):
    golden = Case(case)
    model = golden.model()
    if wrong == "cutoff_power":
        for part in model.modules():
            if hasattr(part, "power"):
                part.power = 2
    elif wrong == "condition":
        if golden.config["model"] == "ET":
            pytest.skip("ET has no condition")
        model.rep_model.ignore_condition = True
    else:
        name = next(n for n, p in model.named_parameters() if n.endswith("o_proj.bias"))
        model.get_parameter(name).data[-1] += 0.1  # of o3: it reaches the scalars in every layer
    with torch.no_grad():
        found = golden.compute(model, "uncond")
    assert not close(found["x"], golden.wanted["f64_uncond_x"], 100 * golden.tolerance)


def test_mismatched_tensors_are_named(case):
    golden = Case(case)
    tensors = dict(golden.tensors)
    key = "rep_model.attention_layers.0.q_proj.weight"
    tensors[key] = tensors[key][:, :-1]
    tensors["rep_model.surprise"] = tensors.pop("noise_head.output_network.0.vec1_proj.weight")
    with pytest.raises(WeightsError) as caught:
        from_published(golden.config, tensors)
    for part in ("q_proj.weight has shape", "unexpected rep_model.surprise", "missing noise_head"):
        assert part in str(caught.value)


def _step(golden: Case, **kinds):
    """The released pretraining step on our network: what it found, and the network with its gradients."""
    model = golden.model(detach_modulation=True, **kinds).train()
    for part in model.modules():
        if hasattr(part, "p"):
            part.p = 0.0
    for parameter in model.frozen_in_pretraining():
        parameter.requires_grad_(False)
    given = golden.given
    clean = golden.graph(model, given["pos"] + given["reg_noise"])
    corrupted = golden.graph(model, given["pos"] + given["corrupt_noise"])
    found = denoise(model, corrupted, torch.from_numpy(given["corrupt_noise"]), clean)
    found.loss.backward()
    return found, model


def test_pretraining_step(step):
    golden = Case(step)
    found, model = _step(golden)
    wanted, normalizer = golden.wanted, model.noise_normalizer
    pairs = {
        "mol_emb_clean": found.condition,
        "noise_pred": found.prediction,
        "target": found.target,
        "loss": found.loss,
        "pred_displacement": normalizer.displacement(found.prediction),
    } | {key: getattr(normalizer, key) for key in ("acc_sum", "acc_squared_sum", "acc_count", "num_accumulations")}
    for key, value in pairs.items():
        assert close(value, wanted[key], 1e-9), key
    gradients = {_released(name): p.grad for name, p in model.named_parameters()}
    for key in wanted:
        if key.startswith("grad."):
            assert close(gradients[key.removeprefix("grad.")], wanted[key], 1e-10), key
    norms = golden.config["grad_norm"]
    assert norms.keys() == gradients.keys()
    for name, norm in norms.items():
        if norm is None:
            assert gradients[name] is None, name
        else:
            assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-6, abs=1e-12), name
    model.get_parameter("noise_head.output_network.1.vec2_proj.weight").data *= 1.001  # the wrong variant
    x, v = model.node_features(golden.graph(model, golden.given["pos"] + golden.given["corrupt_noise"]), None)
    assert not close(model.noise_head(x, v)[1], wanted["noise_pred"], 1e-9)


def test_frozen_and_decaying_parameters(step):
    golden = Case(step)
    _, model = _step(golden)
    frozen = [_released(n) for n, p in model.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == sorted(golden.config["frozen"])
    named = {_released(n): p for n, p in model.named_parameters()}
    assert sorted(n for n in named if decays_in_scd(n)) == sorted(golden.config["decay"])
    assert sorted(n for n in named if not decays_in_scd(n)) == sorted(golden.config["no_decay"])
    of_other_families = [n for n, p in named.items() if adam.decays(n, p)]
    assert sorted(of_other_families) != sorted(golden.config["decay"])


def _released(name: str) -> str:
    return name.replace("scalar_heads.energy.", "scalar_head.")


def test_tiling(arrays):
    given = np.load(arrays)
    atoms = Atoms(given["tile_z_in"], given["tile_pos_in"], cell=given["tile_cell_in"], pbc=True)
    made = tiled(atoms, tuple(given["tile_reps"]))
    assert (made.numbers == given["tile_z"]).all()
    assert np.abs(made.positions - given["tile_pos"]).max() < 1e-5  # the release goes through float32 fractions
    assert np.abs(made.cell.array - given["tile_cell"]).max() < 1e-12
    assert len(tiled(atoms, (1, 1, 2))) == len(made)
    if given["tile_reps"].tolist() != [1, 1, 2]:  # the wrong variant: another axis
        assert np.abs(tiled(atoms, (1, 1, 2)).positions - given["tile_pos"]).max() > 1


def test_neighbour_lists(arrays):
    from omnicalc.models.scd.edges import edges_of

    given = np.load(arrays)
    systems = Systems.from_atoms(Atoms(given["nl_z"], given["nl_pos"], cell=given["nl_cell"], pbc=True))
    found = neighbors(systems, 5.0)
    vectors = found.vectors(systems.positions, systems.cell, systems.system)
    graph = Graph.build(systems, found, vectors, torch.zeros(1, dtype=torch.int64))
    names = [n.removesuffix("_edge_index") for n in given if n.startswith("nl") and n.endswith("_edge_index")]
    assert names
    for name in names:
        wanted = _edge_set(*given[f"{name}_edge_index"], given[f"{name}_vec"])
        for cap in (int(name.removeprefix("nl")), 7):
            edges = edges_of(graph, cutoff=5.0, max_neighbors=cap)
            kept = len(given[f"{name}_distance"]) < edges.n_pairs + edges.n_atoms  # whether self loops are listed
            n = edges.n_pairs if kept else len(edges.source)
            mine = _edge_set(edges.source[:n], edges.target[:n], edges.vectors[:n])
            assert (mine == wanted) == (cap != 7)
