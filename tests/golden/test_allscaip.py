"""AllScAIP against the release: every case of ``<golden-dir>/allscaip``, in float64 and float32."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from omnicalc.errors import WeightsError
from omnicalc.gradients import geometry
from omnicalc.models.allscaip import from_published
from omnicalc.models.allscaip.model import bond_orders, exchange, harmonics
from omnicalc.models.allscaip.slots import Slots
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.golden.folders import each_case

FAMILY = "allscaip"


def pytest_generate_tests(metafunc):
    each_case(metafunc, FAMILY)


class Case:
    """One golden folder: published settings and tensors, some structures, and what the release computes for them."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "weights.safetensors")
        self.wanted = np.load(folder / "output.npz")
        given = np.load(folder / "input.npz")
        parts = {name: torch.from_numpy(given[key]) for name, key in _INPUTS.items()}
        self.systems = Systems(**parts)

    def potential(self, dtype: torch.dtype) -> Potential:
        model = from_published(self.config, self.tensors).to(dtype).requires_grad_(False).eval()
        no_references = dict.fromkeys(range(119), 0.0)
        return Potential(model, [Head(name, no_references) for name in model.config.heads])

    def predict(self, potential: Potential, systems: Systems | None = None):
        systems = systems or self.systems
        found = neighbors(systems, potential.cutoff)
        stress = "stress_f64" in self.wanted
        return potential(systems, found, head=next(iter(potential.heads)), stress=stress)

    def graph(self, potential: Potential):
        found = neighbors(self.systems, potential.cutoff)
        at = geometry(potential.model, self.systems, found, potential.dtype, False)
        return at.graph(torch.zeros_like(self.systems.charge))


_INPUTS = {
    "positions": "positions_as_fed", "cell": "cell_as_fed", "numbers": "atomic_numbers", "pbc": "pbc",
    "charge": "charge", "spin": "spin", "system": "batch",
}  # fmt: skip


def change(potential: Potential, **settings) -> Potential:
    """The same potential with other settings, of those that change no tensor."""
    model = potential.model
    model.config = model.input.config = replace(model.config, **settings)
    return potential


def misses(golden: Case, result, suffix: str) -> dict[str, float]:
    """Largest difference in each output, in units of what is allowed in that precision."""
    wanted = {name: golden.wanted[f"{name}_{suffix}"].astype(float) for name in ("energy", "forces")}
    found = {"energy": result.energy.numpy(), "forces": result.forces.numpy()}
    if result.stress is not None:
        wanted["stress"], found["stress"] = golden.wanted[f"stress_{suffix}"], result.stress.numpy().reshape(-1, 9)
    scale = {name: np.maximum(1.0, np.abs(value)) for name, value in wanted.items()}
    scale["forces"] = scale["forces"].max()
    rough = {"energy": 1e-5 * scale["energy"], "forces": 2e-5 * scale["forces"], "stress": 1e-5}
    allowed = rough if suffix == "f32" else dict.fromkeys(wanted, 1e-9)
    return {name: float((np.abs(found[name] - wanted[name]) / allowed[name]).max()) for name in wanted}


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "suffix"), [(torch.float64, "f64"), (torch.float32, "f32")], ids=["float64", "float32"]
)


@PRECISIONS
def test_energy_forces_and_stress(case, dtype, suffix):
    golden = Case(case)
    found = misses(golden, golden.predict(golden.potential(dtype)), suffix)
    assert max(found.values()) < 1, found


def test_without_fused_attention(case):
    golden = Case(case)
    potential = golden.potential(torch.float64).train()
    found = misses(golden, golden.predict(potential), "f64")
    assert max(found.values()) < 1, found


@pytest.mark.parametrize("mistake", ["cutoff", "envelope"])
def test_a_wrong_setting_is_noticed(case, mistake):
    """The check is sharp: a cutoff that is a millionth longer, or neighbours that do not fade, fail it."""
    golden = Case(case)
    potential = golden.potential(torch.float64)
    config = potential.model.config
    if len(Slots.build(golden.graph(potential), config).reverse) == golden.systems.n_atoms:
        pytest.skip("no atom has a neighbour")
    settings = {"cutoff": (1 + 1e-6) * config.cutoff} if mistake == "cutoff" else {"envelope": not config.envelope}
    found = misses(golden, golden.predict(change(potential, **settings)), "f64")
    assert max(found.values()) > 1, found


@PRECISIONS
def test_intermediate_features(case, dtype, suffix):
    golden = Case(case)
    if "mid_node_reps" not in golden.wanted:
        pytest.skip("this case has no intermediate values")
    potential = golden.potential(dtype)
    model, graph, seen = potential.model, golden.graph(potential), {}
    slots = Slots.build(graph, model.config)
    model.input.register_forward_hook(lambda module, inputs, output: seen.__setitem__("input_block_out", output))
    for k, block in enumerate(model.blocks):
        keep = f"block{k}_node_out"
        block.register_forward_hook(lambda module, inputs, output, keep=keep: seen.__setitem__(keep, output[:, 0]))
    with torch.no_grad():
        seen["node_reps"] = model.features(graph)
    tolerance = 2e-6 if suffix == "f64" else 2e-5
    every = harmonics(slots.unit, model.config.order_degrees)
    seen["node_direction_expansion"] = bond_orders(every, slots, model.config)
    seen["src_neighbor_attn_mask"] = slots.log_envelope
    edges = {
        "input_block_out": seen.pop("input_block_out"),
        "src_neighbor_attn_mask": seen.pop("src_neighbor_attn_mask").unsqueeze(-1),
        "edge_direction_expansion": every[..., : model.config.direction_degrees**2],
    }
    n_atoms = golden.systems.n_atoms
    for name, value in seen.items():
        wanted = golden.wanted[f"mid_{name}"][:n_atoms].astype(float)
        assert np.abs(value.double().numpy() - wanted).max() < tolerance * max(1.0, np.abs(wanted).max()), name
    for name, value in edges.items():
        if f"mid_{name}" in golden.wanted:
            compare_edges(golden.wanted, name, value.double(), slots, tolerance)


def compare_edges(wanted, name: str, found: torch.Tensor, slots: Slots, tolerance: float) -> None:
    """Every edge of the release has one of ours with the same atoms and direction, and the same values."""
    n_atoms = len(found)
    theirs = wanted[f"mid_{name}"][:n_atoms].astype(float).reshape(n_atoms, -1, found.shape[-1])
    direction, filled = wanted["mid_edge_direction"][:n_atoms], np.isfinite(wanted["mid_src_neighbor_attn_mask"])
    assert filled[:n_atoms].sum() == int(slots.filled.sum())
    for i, slot in zip(*np.nonzero(filled[:n_atoms]), strict=True):
        same = slots.filled[i] & (slots.index[i] == int(wanted["mid_neighbor_index"][1][i, slot]))
        apart = (slots.unit[i].double() - torch.from_numpy(direction[i, slot]).double()).abs().amax(-1)
        match = torch.where(same, apart, torch.inf).argmin()
        assert same[match] and apart[match] < 1e-5
        scale = max(1.0, np.abs(theirs[i, slot]).max())
        assert np.abs(found[i, match].numpy() - theirs[i, slot]).max() < tolerance * scale, name


def test_exchange_tables(case):
    """Every edge is exchanged for the one the release exchanges it for."""
    golden = Case(case)
    potential = golden.potential(torch.float64)
    slots = Slots.build(golden.graph(potential), potential.model.config)
    n_atoms, width = slots.filled.shape
    atoms = torch.arange(n_atoms, dtype=torch.float64)[:, None].expand(n_atoms, width)
    pairs = torch.stack([atoms, slots.index.double()], -1)
    assert torch.equal(exchange(pairs, slots.reverse), pairs.flip(-1))
    assert torch.equal(exchange(slots.unit, slots.reverse), -slots.unit)
    assert torch.equal(exchange(slots.log_envelope.unsqueeze(-1), slots.reverse)[..., 0], slots.log_envelope)
    assert torch.equal(slots.reverse[slots.reverse], torch.arange(len(slots.reverse)))


def test_forces_are_the_gradient(case):
    """Central differences of the float64 energy along a random direction."""
    golden = Case(case)
    potential = golden.potential(torch.float64)
    if not potential.conservative:
        pytest.skip("direct-force case")
    systems = golden.systems
    direction = np.random.default_rng(0).normal(size=systems.positions.shape)
    direction = torch.from_numpy(direction / np.linalg.norm(direction))
    step = 1e-5
    energies = [
        golden.predict(potential, systems.with_positions(systems.positions + sign * step * direction)).energy.sum()
        for sign in (1, -1)
    ]
    slope = (energies[0] - energies[1]).item() / (2 * step)
    assert slope == pytest.approx(-(golden.predict(potential).forces * direction).sum().item(), abs=2e-6)


def test_mismatched_tensors_are_named(case):
    golden = Case(case)
    tensors, prefix = dict(golden.tensors), "backbone.input_block."
    tensors[f"{prefix}node_linear.0.weight"] = tensors[f"{prefix}node_linear.0.weight"][:, :-1]
    tensors[f"{prefix}surprise"] = tensors.pop(f"{prefix}edge_attr_linear.0.bias")
    with pytest.raises(WeightsError) as caught:
        from_published(golden.config, tensors)
    for part in (
        "nothing was loaded",
        "input.atom.weight has shape",
        "backbone.input_block.node_linear.0.weight",
        f"{prefix}surprise",
        "missing input.edge.bias",
    ):
        assert part in str(caught.value)
