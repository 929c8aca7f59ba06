"""E2Former-V2 against the released model: every case of ``<golden-dir>/e2former_v2``, in float64 and float32."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from safetensors.torch import load_file

from omnicalc.errors import WeightsError
from omnicalc.kernel_choice import KernelChoice
from omnicalc.models.e2former import from_published
from omnicalc.models.e2former.angular import coupling
from omnicalc.models.e2former.native import unsupported
from omnicalc.models.graph import Graph
from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.conftest import GOLDEN
from tests.golden.folders import each_case

FAMILY = "e2former_v2"


def pytest_generate_tests(metafunc):
    each_case(metafunc, FAMILY)


class Case:
    """One golden folder: published config and tensors, one structure, and what the release computes for it."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / self.config.get("weights", "weights.safetensors"))
        self.wanted = np.load(folder / "output.npz")
        given = np.load(folder / "input.npz")
        atoms = Atoms(given["numbers"], given["positions"], cell=given["cell"], pbc=given["pbc"])
        charge, spin = (torch.tensor([int(given[key])]) for key in ("charge", "spin"))
        # set here, not by way of the atoms: the release computes spins that no molecule can have as well
        self.systems = replace(Systems.from_atoms(atoms), charge=charge, spin=spin)

    def potential(self, dtype: torch.dtype) -> Potential:
        model = from_published(self.config, self.tensors).to(dtype)
        no_references = dict.fromkeys(range(119), 0.0)
        return Potential(model, [Head(name, no_references) for name in model.config.heads])

    def predict(self, potential: Potential):
        found = neighbors(self.systems, potential.cutoff)
        return potential(self.systems, found, head=self.config["head_name"])

    def by_native_kernel(self):
        """The native kernel's prediction, a cap that cuts nothing dropped; a str says why it does not take the case."""
        potential = self.potential(torch.float32).requires_grad_(False)
        config, most = potential.model.config, np.bincount(self.wanted["edge_i"], minlength=1).max()
        if config.max_neighbors is not None and most < config.max_neighbors:
            potential.model.config = replace(config, max_neighbors=None)
        if reason := unsupported(potential.model.config):
            return reason
        potential.kernel = KernelChoice("native")
        return potential.predict(self.systems, NeighborList(potential.cutoff), head=self.config["head_name"])

    def errors(self, result) -> tuple[float, float]:
        """Of the energy, eV, and the largest of the forces, eV/Å."""
        energy = abs(result.energy.item() - float(self.wanted["energy"]))
        return energy, float(np.abs(result.forces.numpy() - self.wanted["forces"]).max())

    def graph(self, potential: Potential) -> Graph:
        found = neighbors(self.systems, potential.cutoff)
        vectors = found.vectors(self.systems.positions, self.systems.cell, self.systems.system)
        head = torch.tensor([list(potential.heads).index(self.config["head_name"])])
        return Graph.build(self.systems, found, vectors.to(potential.dtype), head)


@pytest.mark.parametrize(
    "dtype, energy_tolerance, force_tolerance",
    [(torch.float64, 1e-9, 1e-9), (torch.float32, 2e-5, 1e-4)],
    ids=["float64", "float32"],
)
def test_energy_and_forces(case, dtype, energy_tolerance, force_tolerance):
    golden = Case(case)
    result = golden.predict(golden.potential(dtype))
    energy, forces = golden.errors(result)
    assert energy < energy_tolerance and forces < force_tolerance
    assert np.abs(result.energies.numpy() - golden.wanted["atom_energy"]).max() < energy_tolerance


def test_unwrapped_atoms(case):
    """Atoms that wandered through many cells: the limit on lattice images counts from their places in the cell."""
    golden = Case(case)
    if not golden.systems.pbc.any():
        pytest.skip("not periodic")
    potential, systems = golden.potential(torch.float64), golden.systems
    cells = torch.arange(3 * systems.n_atoms).reshape(-1, 3) % 11 - 5
    wandered = (cells * systems.pbc[0]).double() @ systems.cell[0]
    golden.systems = systems.with_positions(systems.positions + wandered)
    shift = golden.graph(potential).shift.abs().max()
    assert shift > potential.model.config.image_limit  # else the test would be blind
    result = golden.predict(potential)
    assert abs(result.energy.item() - golden.wanted["energy"]) < 1e-9
    assert np.abs(result.forces.numpy() - golden.wanted["forces"]).max() < 1e-9


def test_native_kernel(case):
    golden = Case(case)
    result = golden.by_native_kernel()
    if isinstance(result, str):
        pytest.skip(f"the native kernel does not support {result}")
    energy, forces = golden.errors(result)
    assert energy < 2e-5 and forces < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_intermediate_features(case, dtype):
    golden = Case(case)
    potential = golden.potential(dtype)
    model, graph, seen = potential.model, golden.graph(potential), {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.__setitem__("node_init", inputs[0]))
    model.blocks[0].attention.register_forward_hook(keep("attn_out0"))
    model.system_embedding.register_forward_hook(keep("sys_embedding"))
    for k, block in enumerate(model.blocks):
        block.register_forward_hook(keep(f"node_block{k}"))
    for k, block in enumerate(getattr(model, "long_blocks", [])):
        block.register_forward_hook(keep(f"node_long{k}"))
    with torch.no_grad():
        seen["node_final"] = model.features(graph)
    names = [n for n in golden.wanted if n.startswith(("node_", "attn_", "sys_"))]
    assert set(names) <= set(seen)
    for name in names:
        wanted = golden.wanted[name].astype(float)
        tolerance = 2e-6 if dtype == torch.float64 else 1e-4 * np.abs(wanted).max()
        difference = np.abs(seen[name].double().numpy().reshape(wanted.shape) - wanted)
        assert difference.size == 0 or difference.max() <= tolerance, name


def test_edges(case):
    """The short graph holds the released edges: same pairs, same vectors, truncation included."""
    golden = Case(case)
    potential = golden.potential(torch.float64)
    short = potential.model._short_graph(golden.graph(potential))
    target, slot = short.mask.nonzero(as_tuple=True)
    mine = _edge_set(target, short.index[target, slot], short.vectors[target, slot])
    assert mine == _edge_set(golden.wanted["edge_i"], golden.wanted["edge_j"], golden.wanted["edge_vec"])


def _edge_set(i, j, vectors) -> set:
    rounded = np.round(np.asarray(vectors, dtype=float), 3) + 0.0
    return set(zip(np.asarray(i).tolist(), np.asarray(j).tolist(), map(tuple, rounded.tolist()), strict=True))


def test_forces_are_the_gradient(case):
    """Central differences of the float64 energy along a random direction."""
    golden = Case(case)
    potential = golden.potential(torch.float64)
    if not potential.conservative:
        pytest.skip("direct-force case")
    direction = np.random.default_rng(0).normal(size=golden.systems.positions.shape)
    direction = torch.from_numpy(direction / np.linalg.norm(direction))
    step, systems = 2e-5, golden.systems
    energies = []
    for sign in (1, -1):
        golden.systems = systems.with_positions(systems.positions + sign * step * direction)
        energies.append(golden.predict(potential).energy.item())
    golden.systems = systems
    slope = (energies[0] - energies[1]) / (2 * step)
    assert slope == pytest.approx(-(golden.predict(potential).forces * direction).sum().item(), abs=2e-6)


def test_a_wrong_constant_is_noticed(case):
    """The float64 check is sharp: the other envelope, or e3nn's exact activation gain, fails it."""
    golden = Case(case)
    if not len(golden.wanted["edge_i"]):
        pytest.skip("no edges, so no envelope")
    potential = golden.potential(torch.float64)
    potential.model.config = replace(potential.model.config, envelope="poly5")
    assert abs(golden.predict(potential).energy.item() - golden.wanted["energy"]) > 1e-9


def test_mismatched_tensors_are_named(case):
    golden = Case(case)
    key = "decoder.decoder.blocks.0.ga.proj_value.weight"
    tensors = dict(golden.tensors)
    tensors[key] = tensors[key][:, :-1]
    tensors["decoder.decoder.blocks.0.surprise"] = tensors.pop("decoder.mix_cm.0.bias")
    with pytest.raises(WeightsError) as caught:
        from_published(golden.config, tensors)
    message = str(caught.value)
    for part in (
        "blocks.0.attention.value.weight has shape",
        "unexpected blocks.0.surprise",
        "missing system_embedding.mix.bias",
    ):
        assert part in message


def test_initial_embedding_without_layernorm():
    """With "wolayernorm" the release numbers the layers of that radial network 0, 2, 4 in place of 0, 3, 6."""
    folder = GOLDEN / FAMILY
    golden, named = Case(folder / "ethanol_qk_l1"), re.compile(r"(.*gbf_projs\.\d\.net\.)(\d)(.*)")
    golden.wanted = np.load(folder / "ethanol_wolayernorm.npz")
    golden.config["backbone_config"]["edge_embedtype"] = "wolayernorm"
    number = {"0": "0", "3": "2", "6": "4"}  # and no norms, 1 and 4
    for key in list(golden.tensors):
        if found := named.fullmatch(key):
            tensor = golden.tensors.pop(key)
            if found[2] in number:
                golden.tensors[f"{found[1]}{number[found[2]]}{found[3]}"] = tensor
    energy, forces = golden.errors(golden.predict(golden.potential(torch.float64)))
    assert energy < 1e-9 and forces < 1e-9


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("so2_tp.CG_weight", lambda t: -t, "CG_weight holds other numbers than this architecture's"),
        ("so2_tp.selected_idx", lambda t: t.flip(0), "selected_idx holds other numbers"),
        ("so2_tp.path_norm", lambda t: t[:, 1:], r"path_norm has shape \(1, 3, 1\), the config asks for \(1, 4, 1\)"),
        ("norm_1.balance_degree_weight", lambda t: 2 * t, "balance_degree_weight holds other numbers"),
        ("query_linear.expand_index", lambda t: t[1:], r"expand_index has shape \(3,\), .* asks for \(4,\)"),
        ("Jd_list.2", lambda t: t[1:], r"Jd_list.2 has shape \(4, 5\), the config asks for \(5, 5\)"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_other_constants_are_named(part, change, message):
    """The release computes with the constants of its file, so a file that has others is none of this architecture."""
    golden = Case(GOLDEN / FAMILY / "ethanol_qk_l1")
    tensors = golden.tensors | {"decoder.decoder.Jd_list.2": torch.eye(5)}
    key = next(key for key in tensors if key.endswith(part))
    with pytest.raises(WeightsError, match=message):
        from_published(golden.config, tensors | {key: change(tensors[key])})


def test_coupling_tables(request):
    file = request.config.getoption("--golden-dir") / FAMILY / "cg_tables.npz"
    if not file.is_file():
        pytest.skip("this set of cases has no coupling tables")
    tables = np.load(file)
    degrees = [tuple(int(part) for part in name.split("_")[1::2]) for name in tables]
    supported = [(l1, l3) for l1, l3 in degrees if max(l1, l3) <= 2]
    assert len(supported) == 6
    for l1, l3 in supported:
        assert np.abs(coupling(l1, l3).numpy() - tables[f"C_{l1}_1_{l3}"]).max() < 1e-14


def test_the_table_of_cases():
    """analysis/kernels/golden.py: numbers where there are any, reasons elsewhere."""
    from analysis.kernels.golden import row  # it takes the cases from here

    name, atoms, *cells = [cell.strip() for cell in row(GOLDEN / FAMILY / "water_qk_l2").strip("|").split("|")]
    assert (name, atoms) == ("water_qk_l2", "3")
    for cell, most in zip(cells, (1e-9, 1e-4, 1e-4), strict=True):
        assert all(0 < float(error) < most for error in cell.split(","))
    assert row(GOLDEN / FAMILY / "water_direct_l2").endswith("| a direct force head |")
