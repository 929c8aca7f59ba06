"""The neighbour graph from a neighbour list against the dense one; its cost; its derivatives."""

import resource
import time

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from omnicalc.errors import InputError
from omnicalc.gradients import geometry
from omnicalc.models.allscaip import AllScAIP, AllScAIPConfig
from omnicalc.models.allscaip.ranks import SLOPES, STEPS, soft_ranks
from omnicalc.models.allscaip.slots import Slots
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems
from tests.models.allscaip.dense_graph import dense_graph

FEW = {"width": 4, "layers": 1, "attention_heads": 1, "n_radial": 4}
RELEASED = {"image_limit": True, "cutoff": 5.0, "neighbors": 9}


def random_atoms(n: int, cell, seed: int, pbc=True, skew: float = 0.1) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = np.array(cell) + rng.normal(scale=skew, size=(3, 3))
    atoms = Atoms(f"H{n}", scaled_positions=rng.random((n, 3)), cell=cell, pbc=pbc)
    for _ in range(200):  # apart, as atoms are
        d = atoms.get_all_distances(mic=True) + 9 * np.eye(n)
        i, j = np.unravel_index(d.argmin(), d.shape)
        if d[i, j] > 0.7:
            break
        atoms.positions[j] = rng.random(3) @ cell
    atoms.info["spin"] = 1 + n % 2
    return atoms


def slots_of(atoms: Atoms, config: AllScAIPConfig, dtype=torch.float64) -> Slots:
    systems, model = Systems.from_atoms(atoms), AllScAIP(config)
    at = geometry(model, systems, neighbors(systems, model.cutoff), dtype, False)
    return Slots.build(at.graph(torch.zeros(1, dtype=torch.int64)), config)


def edge_set(slots: Slots, atoms: Atoms) -> dict:
    """(i, j, image) -> g, of positions in the cell."""
    found, cell = {}, atoms.cell.complete().array
    vectors = (slots.unit * slots.distance.unsqueeze(-1)).numpy()
    for i, k in zip(*slots.filled[:, 1:].nonzero(as_tuple=True), strict=True):
        i, k = int(i), int(k) + 1
        j = int(slots.index[i, k])
        image = np.rint((vectors[i, k] + atoms.positions[i] - atoms.positions[j]) @ np.linalg.inv(cell)).astype(int)
        found[i, j, tuple(image.tolist())] = float(slots.log_envelope[i, k])
    return found


CASES = {
    "molecule": (molecule("CH3CH2OH"), {}),
    "box": (random_atoms(30, np.eye(3) * 7.5, 0), {}),
    "many images": (random_atoms(4, np.eye(3) * 2.7, 1), {}),
    "images just beyond the limit": (
        random_atoms(6, np.eye(3) * 4.1, 5, skew=0.02),
        {"ranking": "all", "cutoff": 4.0, "neighbors": 12},
    ),
    "slab": (random_atoms(14, np.diag([5.0, 5.2, 20.0]), 2, pbc=[True, True, False]), {}),
    "all ranks": (random_atoms(12, np.eye(3) * 5.0, 3), {"ranking": "all"}),
    "hard ranks": (random_atoms(20, np.eye(3) * 6.0, 4), {"ranking": "hard"}),
    "other scales": (random_atoms(25, np.eye(3) * 7.0, 6), {"rank_scale": 0.35, "limit_scale": 0.05}),
    "smooth": (random_atoms(24, np.eye(3) * 5.5, 7), {"smooth": True, "image_limit": False}),
    "two far atoms": (Atoms("HHe", [[0, 0, 0], [9.0, 0, 0]], info={"spin": 2}), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_dense_graph(name):
    atoms, changes = CASES[name]
    config = AllScAIPConfig(heads=("a",), **{**FEW, **RELEASED, **changes})
    systems = Systems.from_atoms(atoms)
    cell = torch.from_numpy(np.array(atoms.cell.complete().array))
    images = 2 if config.smooth else None
    wanted = dense_graph(systems.positions, cell, systems.pbc[0], config, images)
    found = edge_set(slots_of(atoms, config), atoms)
    assert found.keys() == wanted.keys()
    assert (name == "two far atoms") == (not found)
    assert found == pytest.approx({edge: g for edge, (_, g) in wanted.items()}, rel=1e-9, abs=1e-12)


def test_a_candidate_left_out_is_noticed():
    """Ranks count what lies beyond the cutoff, and the images that the release looks at."""
    atoms, changes = CASES["images just beyond the limit"]
    config = AllScAIPConfig(heads=("a",), **{**FEW, **RELEASED, **changes})
    free = AllScAIPConfig(heads=("a",), **{**FEW, **RELEASED, **changes, "image_limit": False})
    right, wrong = edge_set(slots_of(atoms, config), atoms), edge_set(slots_of(atoms, free), atoms)
    assert right.keys() != wrong.keys() or max(abs(right[e] - wrong[e]) for e in right) > 1e-7


def test_atoms_outside_the_cell_are_wrapped_as_the_release_does():
    atoms, changes = CASES["images just beyond the limit"]
    config = AllScAIPConfig(heads=("a",), **{**FEW, **RELEASED, **changes})
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).integers(-3, 4, size=(len(atoms), 3)) @ atoms.cell.array
    here, there = slots_of(atoms, config), slots_of(moved, config)
    assert here.filled.sum() == there.filled.sum()
    rows = zip(here.log_envelope, there.log_envelope, strict=True)
    assert all(torch.allclose(a.sort()[0], b.sort()[0], atol=1e-9) for a, b in rows)


def test_slots_beyond_the_padding_are_dropped_on_both_sides():
    atoms, _ = CASES["box"]
    config = AllScAIPConfig(heads=("a",), **{**FEW, **RELEASED, "neighbors": 14})
    few = AllScAIPConfig(heads=("a",), **{**FEW, **RELEASED, "neighbors": 14, "max_slots": 6})
    systems = Systems.from_atoms(atoms)
    every = dense_graph(systems.positions, systems.cell[0], systems.pbc[0], config)
    rows = {}
    for i, j, image in sorted(every, key=lambda edge: every[edge][0]):
        rows.setdefault(i, []).append((j, image))
    kept = {(i, *edge) for i, row in rows.items() for edge in row[:5]}
    both = {(i, j, n) for i, j, n in kept if (j, i, tuple(-x for x in n)) in kept}
    assert edge_set(slots_of(atoms, few), atoms).keys() == both != every.keys()


def test_reverse_needs_images_that_can_be_numbered():
    atoms = random_atoms(4, np.eye(3) * 4.0, 1)
    atoms.positions[0] += 4e6
    with pytest.raises(InputError, match="cells away; wrap them into the cell"):
        slots_of(atoms, AllScAIPConfig(heads=("a",), **{**FEW, "smooth": True}))


@pytest.mark.parametrize("kind", STEPS)
def test_ranks_and_their_derivatives(kind):
    rng = torch.Generator().manual_seed(0)
    row, candidate = (5 * torch.rand(3, n, generator=rng, dtype=torch.float64) for n in (4, 7))
    wanted = STEPS[kind]((row[:, :, None] - candidate[:, None, :]) / 0.3).sum(-1)
    assert torch.allclose(soft_ranks(row, candidate, 0.3, kind), wanted)
    leaves = [row.requires_grad_(), candidate.requires_grad_()]
    assert torch.autograd.gradcheck(lambda r, c: soft_ranks(r, c, 0.3, kind), leaves)
    assert torch.autograd.gradgradcheck(lambda r, c: soft_ranks(r, c, 0.3, kind), leaves)
    x = torch.linspace(-5, 5, 2001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(STEPS[kind](x).sum(), x)
    assert torch.allclose(slope, SLOPES[kind](x), atol=1e-12)


def test_five_thousand_atoms_of_water():
    """The graph, search included, in less than a second of one core and less than 1 GB."""
    from ase.io import read

    atoms = read("examples/water.xyz")
    box = (atoms * (3, 3, 3))[:5001]
    config = AllScAIPConfig(heads=("a",), **FEW)
    systems, model = Systems.from_atoms(box), AllScAIP(config)
    before, best = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, np.inf
    for _ in range(2):
        start = time.process_time()
        found = neighbors(systems, model.cutoff)
        at = geometry(model, systems, found, torch.float32, True)
        slots = Slots.build(at.graph(torch.zeros(1, dtype=torch.int64)), config)
        best = min(best, time.process_time() - start)
    assert slots.filled.shape[0] == 5001 and slots.log_envelope.requires_grad
    assert best < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes
