"""AllScAIP keeps the contract with random weights, but for two promises that it breaks by design, and measures those:

its energy depends on the orientation of a structure, and its attention between all atoms has no cutoff, so that the
energies of two far structures do not add up. Without that attention they do.
"""

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.gradients import geometry
from omnicalc.models import build_model
from omnicalc.models.allscaip.slots import Slots
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.rotations import rotation_spread
from omnicalc.systems import Systems

from . import checks
from .checks import Evaluate
from .potential_contract import PotentialContract


class RandomWeights(PotentialContract):
    head = "a"
    elements = ("H", "O")
    mirror_symmetric = False
    charge_sensitive = True
    config: dict = {}

    def make(self, dtype):
        return random_potential(dtype, **self.config)

    @pytest.mark.parametrize("periodic", [True, False], ids=["box", "molecule"])
    def test_rotation(self, evaluate, periodic, record_property):
        """Broken by design: the spread over orientations is measured, and is real; without a rotation there is none."""
        atoms = self.box() if periodic else self.molecules()[0]
        spread = rotation_spread(evaluate.potential, atoms, 6, head=self.head)
        record_property("energy spread over orientations, meV/atom", spread.energy)
        record_property("force spread over orientations, meV/Å", spread.force)
        assert spread.energy > 1e3 * checks.TOLERANCE[evaluate.dtype].energy
        assert spread.force > 1e3 * checks.TOLERANCE[evaluate.dtype].force
        checks.check_orthogonal(evaluate, atoms, np.eye(3))
        with pytest.raises(AssertionError):
            checks.check_orthogonal(evaluate, atoms, checks.rotation(np.random.default_rng(4)))

    def test_smooth_where_a_neighbor_goes(self, reference):
        """The energy has no jump where a neighbour ceases to be one, which is well within the cutoff."""
        atoms = Atoms("HOHO", [[0, 0, 0], [1.9, 0.3, 0], [0, 2.0, 0.1], [4, 0.2, -0.3]])
        at = last_distance(reference.potential, atoms, 3)
        distances = np.linspace(at - 0.02, at + 0.02, 41)
        checks.check_smooth(reference, atoms, 3, distances)
        published = {key: value for key, value in self.config.items() if key not in ("preset", "smooth")}
        wrong = Evaluate(random_potential(torch.float64, **{**SIZE, **published}), self.head)
        at = last_distance(wrong.potential, atoms, 3)
        with pytest.raises(AssertionError):
            checks.check_smooth(wrong, atoms, 3, np.linspace(at - 0.02, at + 0.02, 41))


SIZE = {
    "width": 16, "layers": 2, "attention_heads": 2, "cutoff": 4.5, "neighbors": 12, "n_radial": 16,
    "direction_degrees": 3, "order_degrees": 4, "scale": 0.4,
}  # fmt: skip


def random_potential(dtype: torch.dtype, **config) -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("allscaip", {"heads": ["a", "b"], **config})
        for name, parameter in model.named_parameters():
            if "element" in name:
                torch.nn.init.normal_(parameter)
    model = model.to(dtype).requires_grad_(False).eval()
    references = {1: -13.6, 8: -432.0}
    return Potential(model, [Head("a", references), Head("b", references)])


def last_distance(potential: Potential, atoms: Atoms, moving: int) -> float:
    """Where, on its way along x, an atom ceases to be a neighbour of any of the others."""
    systems = Systems.from_atoms(atoms)

    def edges(x: float) -> int:
        positions = systems.positions.clone()
        positions[moving, 0] = x
        moved = systems.with_positions(positions)
        found = neighbors(moved, potential.cutoff)
        graph = geometry(potential.model, moved, found, potential.dtype, False).graph(torch.zeros_like(moved.charge))
        return int(Slots.build(graph, potential.model.config).filled[moving].sum())

    low, high = 3.0, 3.0 + potential.cutoff
    assert edges(low) > 1 and edges(high) == 1
    while high - low > 1e-6:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if edges(middle) > 1 else (low, middle)
    return low


class TestSmooth(RandomWeights):
    """As our own weights: nothing that jumps, edges alone."""

    config = {**SIZE, "smooth": True, "angular": (3, 3, 2)}

    def test_far_systems_add_up(self, reference, record_property):
        """Broken by design: what attention between all atoms makes of two far structures is measured, and is real."""
        one, other = self.molecules()[:2]
        far = other.copy()
        far.positions += [self.separation, 0, 0]
        parts = [reference(Systems.from_atoms(atoms)).energy.item() for atoms in (one, other)]
        miss = reference(Systems.from_atoms(one + far)).energy.item() - sum(parts)
        record_property("energy that two far structures miss, meV/atom", 1e3 * miss / len(one + other))
        assert abs(miss) / len(one + other) > 1e-6  # eV; without that attention below 1e-11


def only(*names: str):
    """Leave out the inherited tests but these, where the others would see nothing new."""

    def chosen(cls):
        for name in dir(cls):
            if name.startswith("test_") and name not in names:
                setattr(cls, name, None)
        return cls

    return chosen


@only("test_far_systems_add_up", "test_batch_equals_single_runs")
class TestWithoutNodeAttention(RandomWeights):
    """Then far structures add up."""

    config = {**SIZE, "smooth": True, "node_attention": False}


@only(
    "test_rotation", "test_translation", "test_forces_are_the_gradient", "test_stress_is_the_strain_derivative",
    "test_batch_equals_single_runs", "test_smooth_at_the_cutoff", "test_far_systems_add_up",
)  # fmt: skip
class TestDistancesBetweenAllAtoms(TestSmooth):
    """With the sinc encoding, so that forces come from positions in the place of edges."""

    config = {**SIZE, "smooth": True, "sinc": 8, "layers": 1}
