"""Fragments of the long range: shares against a plain loop, reach, and a proton that changes hands."""

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.errors import WeightsError
from omnicalc.models import build_model
from omnicalc.models.e2former.fragments import Fragments
from omnicalc.models.e2former.layers import envelope
from omnicalc.models.graph import Graph
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from omnicalc.training.start import copy_matching
from tests.contracts.structures import triclinic_waters, waters

RADIUS = 1.6


def graph(atoms: Atoms, cutoff: float = 4.5) -> Graph:
    systems = Systems.from_atoms(atoms)
    found = neighbors(systems, cutoff)
    vectors = found.vectors(systems.positions, systems.cell, systems.system)
    return Graph.build(systems, found, vectors, torch.zeros(1, dtype=torch.int64))


def potential(**config) -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        settings = {"heads": ["a"], "elements": [1, 8], "channels": 16, "long_layers": 1, "long_upper": 10.0,
                    "long_sources": "fragments", **config}  # fmt: skip
        model = build_model("e2former", settings)
    return Potential(model.double(), [Head("a", {1: 0.0, 8: 0.0})])


def energy(found: Potential, atoms: Atoms) -> float:
    systems = Systems.from_atoms(atoms)
    return found(systems, neighbors(systems, found.cutoff), head="a", forces=False).energy.item()


def test_shares_by_a_plain_loop():
    atoms = triclinic_waters()
    found = Fragments(graph(atoms), RADIUS)
    shares = np.zeros((len(atoms), len(atoms)))
    shares[found.hydrogen, found.heavy] = found.share
    for h in np.flatnonzero(atoms.numbers == 1):
        oxygens = np.flatnonzero(atoms.numbers == 8)
        r = torch.from_numpy(atoms.get_distances(h, oxygens, mic=True))
        step = torch.where(r < RADIUS, envelope(r, RADIUS, "poly7"), 0.0)
        assert shares[h, oxygens] == pytest.approx((step / (step.sum() + 1e-3)).numpy(), abs=1e-12)
        assert shares[h].sum() == pytest.approx(1, abs=0.01)  # every hydrogen has one oxygen near it
    assert (shares[atoms.numbers == 8] == 0).all()


def test_bond_directions_point_from_the_heavy_atom_to_the_hydrogen():
    atoms = waters(2, None)
    found = Fragments(graph(atoms), RADIUS)
    wanted = atoms.positions[found.hydrogen] - atoms.positions[found.heavy]
    assert found.unit.numpy() == pytest.approx(wanted / np.linalg.norm(wanted, axis=1, keepdims=True))


def test_a_proton_that_changes_hands_meets_no_step():
    pool, atoms = potential(), Atoms("OHO", [[0, 0, 0], [0.9, 0, 0], [2.5, 0, 0]])
    far = waters(1, None)
    far.positions += [4.0, 6.0, 0.0]  # sees the fragments from beyond the local cutoff
    path = np.linspace(0.7, 1.8, 221)
    energies = []
    for x in path:
        atoms.positions[1, 0] = x
        energies.append(energy(pool, atoms + far) - energy(pool, atoms))
    second = np.diff(energies, 2)
    assert np.abs(np.diff(energies)).max() > 1e-7  # it is felt at all
    assert np.abs(np.diff(second)).max() < 0.2 * np.abs(second).max()  # a step, or a kink, would be as large as that


def test_far_fragments_are_felt_up_to_the_long_cutoff_and_not_beyond():
    water = waters(1, None)

    def interaction(found, distance):
        both = water.copy()
        both += water
        both.positions[3:] += [distance, 0, 0]
        return abs(energy(found, both) - 2 * energy(found, water))

    local, long = potential(long_layers=0), potential()
    assert interaction(local, 7.0) < 1e-12
    assert interaction(long, 7.0) > 1e-8
    assert interaction(long, 13.0) < 1e-12


def test_hydrogens_turn_the_fragment():
    """Turning a far water about its oxygen changes the energy: a fragment has a direction."""
    one, other = waters(1, None, seed=4), waters(1, None, seed=4)
    other.rotate(180, "z", center=other.positions[0])
    near = waters(1, None)
    found = potential()
    for turned in (one, other):
        turned.positions += np.array([7.5, 0, 0]) - turned.positions[0]
    alone = [energy(found, water) for water in (one, other)]
    assert alone[0] == pytest.approx(alone[1], abs=1e-10)
    felt = [energy(found, near + water) for water in (one, other)]
    assert abs(felt[0] - felt[1]) > 1e-9


def test_edges_are_linear_in_the_number_of_atoms():
    cell = [[6.3, 0, 0], [0.7, 6.2, 0], [-0.5, 0.4, 6.4]]
    counts = []
    for times in (1, 2, 4):
        found = Fragments(graph(waters(8, cell).repeat((times, 1, 1))), RADIUS)
        counts.append(len(found.hydrogen))
    assert counts[1] == 2 * counts[0] and counts[2] == 4 * counts[0]


def test_added_blocks_begin_at_nothing_and_are_felt_once_they_are_trained():
    """So weights without them are a start; the concatenated ones of the release are another network at once."""
    local, added, concatenated = potential(long_layers=0), potential(long_merge="added"), potential()
    for found in (added, concatenated):
        copy_matching(found.model, ("a",), local.model.state_dict(), ("a",), {})
    water = waters(2, None)
    assert energy(added, water) == pytest.approx(energy(local, water), abs=1e-12)
    assert abs(energy(concatenated, water) - energy(local, water)) > 1e-3
    far = water.copy()
    far.positions[3:] += [7.0, 0, 0]
    before = energy(added, far)
    with torch.no_grad():
        added.model.add_long.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert abs(energy(added, far) - before) > 1e-4


def test_what_cannot_be_is_refused():
    with pytest.raises(WeightsError, match="long_merge"):
        potential(long_merge="multiplied")
    with pytest.raises(WeightsError, match="long_sources"):
        potential(long_sources="grid")
    with pytest.raises(WeightsError, match="fragment_radius"):
        potential(fragment_radius=30.0)
