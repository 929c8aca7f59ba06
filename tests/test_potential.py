"""Heads, periodic boxes, references, stress of open systems, direct forces and bound potentials."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.errors import InputError, OmniCalcWarning
from omnicalc.gradients import forces_from_edges
from omnicalc.joint_list import JointList
from omnicalc.kernels.native.attention import why_not
from omnicalc.models import build_model
from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems

WATER = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def potential(references=None, **config) -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", {"heads": ["wet", "salty"], "elements": [1, 8, 11], "channels": 8, **config})
    wet, salty = references or ({1: -13.0, 8: -430.0}, {1: -14.0, 8: -431.0, 11: -1290.0})
    return Potential(model.double(), [Head("wet", wet), Head("salty", salty)], charges=[0])


def energy(model: Potential, atoms: Atoms, head: str) -> float:
    systems = Systems.from_atoms(atoms)
    return model(systems, neighbors(systems, model.cutoff), head=head).energy.item()


def test_first_head_that_knows_all_elements():
    model = potential()
    salt = WATER + Atoms("Na", [[4, 0, 0]])
    assert model.choose_head(Systems.from_atoms(WATER)) == "wet"
    assert model.choose_head(Systems.from_atoms(salt)) == "salty"
    assert model.choose_head(Systems.from_atoms(WATER), "salty") == "salty"
    with pytest.raises(InputError, match="does not know element Na: head 'wet' knows H, O"):
        model.choose_head(Systems.from_atoms(salt), "wet")
    with pytest.raises(InputError, match="does not know element Mg"):
        model.choose_head(Systems.from_atoms(Atoms("Mg")))
    with pytest.raises(InputError, match="unknown head 'dry'.*wet, salty"):
        model.choose_head(Systems.from_atoms(WATER), "dry")
    with pytest.raises(InputError, match="total charge 1.*trained for 0 only"):
        model.choose_head(Systems.from_atoms(WATER, charge=1))


def test_spins_outside_the_card_are_refused():
    model = potential()
    model.spins = (1,)
    model.choose_head(Systems.from_atoms(WATER))
    with pytest.raises(InputError, match="total spin 3.*trained for 1 only"):
        model.choose_head(Systems.from_atoms(WATER, spin=3))
    model.spins = (4,)  # of the right parity: what is refused then is a spin that nobody gave
    with pytest.raises(InputError, match="total spin 2, but") as refused:
        model.choose_head(Systems.from_atoms(Atoms("OH", [[0, 0, 0], [0.97, 0, 0]])))
    assert "given" not in str(refused.value)


def boxed() -> Systems:
    atoms = WATER.copy()
    atoms.set_cell([9.0, 9.0, 9.0])
    atoms.pbc = [True, False, False]
    return Systems.from_atoms(atoms)


def seen(periodic: str) -> Potential:
    model = potential()
    model.heads["wet"] = Head("wet", model.heads["wet"].reference, periodic=periodic)
    return model


def test_boxes_are_refused_by_heads_that_know_single_molecules_only():
    model = seen("refused")
    assert model.choose_head(Systems.from_atoms(WATER)) == "wet"
    for ask in (model.choose_head, model.bind):
        with pytest.raises(InputError, match=r"'wet' .*single molecules.*--no-pbc.*these elements: .*ubio-s3:small,"):
            ask(boxed())
    assert model.choose_head(boxed(), "salty") == "salty"
    model.any_box = True
    assert model.choose_head(boxed()) == "wet"


def test_boxes_are_warned_of_once_by_heads_that_were_trained_on_none():
    model = seen("untrained")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # by ASE, of what it does with NumPy 2.5
        model.choose_head(Systems.from_atoms(WATER))
        model.choose_head(boxed(), "salty")
        for other in (seen("trained"), seen("")):
            other.choose_head(boxed())
    with pytest.warns(OmniCalcWarning, match="'wet' of unnamed was trained on .* no periodic structure.*ubio-s3:small"):
        model.choose_head(boxed())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # by ASE, of what it does with NumPy 2.5
        model.choose_head(boxed())


def test_references_are_added_in_float64():
    """A large reference does not eat the digits of a float32 model."""
    small, large = {1: 0.0, 8: 0.0}, {1: -13.0, 8: -1e6}
    salty = {1: 0.0, 8: 0.0}
    plain, shifted = potential((small, salty)).float(), potential((large, salty)).float()
    difference = energy(shifted, WATER, "wet") - energy(plain, WATER, "wet")
    assert difference == pytest.approx(-1e6 - 26.0, abs=1e-9)
    assert np.float32(-1e6 - 26.0 + 1e-3) == np.float32(-1e6 - 26.0)  # what float32 sums would have lost


def test_heads_differ_and_batches_may_mix_them():
    model = potential()
    systems = Systems.from_atoms([WATER, WATER])
    both = model(systems, neighbors(systems, model.cutoff), head=torch.tensor([0, 1])).energy
    assert both[0].item() == pytest.approx(energy(model, WATER, "wet"), abs=1e-10)
    assert both[1].item() == pytest.approx(energy(model, WATER, "salty"), abs=1e-10)
    assert both[0] != both[1]


def test_what_would_give_other_energies_is_refused():
    model, waters = potential(), Systems.from_atoms([WATER, WATER])
    found = neighbors(waters, model.cutoff)
    for rows in ([0, 2], [-1, 0], [0]):
        with pytest.raises(InputError, match="a row from 0 to 1 for each of 2 structures is needed: wet, salty"):
            model(waters, found, head=torch.tensor(rows))
    salt = Systems.from_atoms([WATER + Atoms("Na", [[4, 0, 0]]), WATER])
    for head in ("wet", torch.tensor([0, 1])):
        with pytest.raises(InputError, match=r"head 'wet' of unnamed does not know element Na \(atom 3\)"):
            model(salt, neighbors(salt, model.cutoff), head=head)
    near = model.cutoff - 1
    for predict in (
        lambda: model(waters, neighbors(waters, near), head="wet"),
        lambda: model.predict(waters, NeighborList(near), head="wet"),
        lambda: model.predict(waters, JointList([NeighborList(model.cutoff), NeighborList(near)]), head="wet"),
    ):
        with pytest.raises(InputError, match="neighbours within 3.5 Å given; unnamed needs those within 4.5 Å"):
            predict()


def test_compiled_code_meets_torch_operations_alone(monkeypatch):
    attention, y = potential().model.blocks[0].attention, torch.zeros(3, dtype=torch.float64)
    edges = SimpleNamespace(flat_edges="those of the native loops", edge_lists=None)
    assert why_not() is not None or attention.kernel_edges(y, edges) is not None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert attention.kernel_edges(y, edges) is None


def test_results_carry_no_graph_unless_asked():
    model, systems = potential(), Systems.from_atoms(Atoms(WATER, cell=[5, 5, 5], pbc=True))
    found = neighbors(systems, model.cutoff)
    result = model(systems, found, head="wet", stress=True)
    assert not any(t.requires_grad for t in vars(result).values() if t is not None)
    assert model(systems, found, head="wet", create_graph=True).forces.requires_grad


def test_stress_without_volume_is_nan():
    model, systems = potential(), Systems.from_atoms(WATER)
    result = model(systems, neighbors(systems, model.cutoff), head="wet", stress=True)
    assert torch.isnan(result.stress).all()
    assert torch.isfinite(result.forces).all()


@pytest.mark.parametrize("kind", ["linear", "painn"])
def test_direct_forces_turn_with_the_structure(kind):
    model = potential(forces=kind)
    assert not model.conservative
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = Atoms(WATER.numbers, WATER.positions @ quarter.T)
    one, other = (model.bind(Systems.from_atoms(a), head="wet") for a in (WATER, turned))
    forces = one(torch.from_numpy(WATER.positions)).forces
    assert forces.abs().max() > 0
    again = other(torch.from_numpy(turned.positions)).forces
    assert torch.allclose(forces @ torch.from_numpy(quarter.T), again, atol=1e-12)


def test_forces_from_edges_by_hand():
    index = torch.tensor([[1], [0], [2]])  # atom 2 has only a padding slot
    gradient = torch.tensor([[[1.0, 2.0, 3.0]], [[-4.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]])
    wanted = torch.tensor([[-5.0, -2.0, -2.0], [5.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert torch.equal(forces_from_edges(gradient, index), wanted)


def test_bound_potential_follows_positions():
    model = potential()
    bound = model.bind(Systems.from_atoms(WATER))
    moved = WATER.positions + np.random.default_rng(0).normal(scale=0.2, size=(3, 3))
    result = bound(torch.from_numpy(moved))
    assert result.energy.item() == pytest.approx(energy(model, Atoms(WATER.numbers, moved), "wet"), abs=1e-10)


class TestInferenceMode:
    """It cannot differentiate: nothing is silently zero there, and nothing made there is kept."""

    def test_structures_made_inside_are_refused(self):
        model = potential()
        with torch.inference_mode(), pytest.raises(InputError, match=r"made inside torch.inference_mode\(\)"):
            energy(model, WATER, "wet")
        systems = Systems.from_atoms(WATER)
        found = neighbors(systems, model.cutoff)
        outside = model(systems, found, head="wet", stress=True)
        with torch.inference_mode():
            inside = model(systems, found, head="wet", stress=True)
            inner = Systems.from_atoms(WATER)
            alone = model(inner, neighbors(inner, model.cutoff), head="wet", forces=False)
        assert torch.equal(inside.forces, outside.forces) and outside.forces.abs().max() > 0
        assert torch.equal(alone.energy, outside.energy) and alone.forces is None

    def test_tables_that_are_kept(self):
        from omnicalc.models.e2former import angular

        angular._second_degree.cache_clear()
        with torch.inference_mode():
            angular.harmonics(torch.ones(1, 3, dtype=torch.float64), 2)
        vectors = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(angular.harmonics(vectors, 2).sum(), vectors)
        assert torch.isfinite(gradient).all()
