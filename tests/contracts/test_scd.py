"""SCD keeps the contract with its own smooth settings; what the released settings break is measured."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from omnicalc.models import build_model
from omnicalc.models.scd.equivariance import equivariance_error
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems

from . import checks
from .potential_contract import PotentialContract
from .structures import symmetric_molecules, triclinic_waters, waters

SMALL = {"channels": 16, "layers": 2, "n_basis": 12, "softening": 0.05, "heads": ["a", "b"]}
RELEASED = {
    "cutoff_power": 1, "max_neighbors": 32, "normalise_self_images": False, "vector_prenorm": "component",
    "clamp": 1000.0, "embedding_pool": "sum", "softening": 0.0,
}  # fmt: skip


def random_potential(config: dict, dtype: torch.dtype, seed: int = 0) -> Potential:
    """Every parameter off its initial value, energies and forces of the size of real ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model("scd", {**SMALL, **config})
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() < 2:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.std.fill_(3.0)
    references = {1: -13.6, 8: -432.0, 11: -1290.0, 17: -400.0}
    heads = [Head("a", references), Head("b", references)]
    return Potential(model.to(dtype).eval(), heads, charges=[0])


class RandomSCD(PotentialContract):
    head = "a"
    elements = ("H", "O")
    config: dict = {}

    def make(self, dtype):
        return random_potential(self.config, dtype)


class TestSmoothCT(RandomSCD):
    pass


class TestSmoothCTOtherSettings(RandomSCD):
    """No post norm, Gaussians, distances in the values alone."""

    config = {"scalar_post_norm": False, "basis": "gauss", "distance_influence": "values", "layers": 1}


@pytest.mark.parametrize(
    "config, broken",
    [({}, False), ({"vector_prenorm": "component"}, True), ({"final_whitening": True}, True)],
    ids=["ours", "component pre-norm", "whitening"],
)
def test_equivariance_error_tells_which_settings_break_rotations(config, broken):
    """Ours is equivariant to rounding; the released pre-norm is off by per cent, and so are flat molecules whitened."""
    model = random_potential({**RELEASED, "vector_prenorm": "equivariant", **config}, torch.float64).model
    systems = Systems.from_atoms([molecule("CH3CH2OH"), molecule("H2O")])
    error = equivariance_error(model, systems)
    assert (error.worst > 1e-3) == broken
    assert broken or error.worst < 1e-11


def test_released_settings_keep_what_does_not_depend_on_axes():
    """Translation, order of atoms, exact gradient; not rotation."""
    evaluate = checks.Evaluate(random_potential(RELEASED, torch.float64), "a")
    atoms = triclinic_waters()
    checks.check_translation(evaluate, atoms)
    checks.check_permutation(evaluate, atoms)
    checks.check_forces(evaluate, evaluate, waters(3, None, seed=2))
    with pytest.raises(AssertionError):
        checks.check_orthogonal(evaluate, atoms, checks.rotation(np.random.default_rng(4)))


@pytest.mark.parametrize("atoms", symmetric_molecules(), ids=["line", "tetrahedron"])
def test_forces_of_released_settings_jump_at_symmetric_geometries(atoms):
    checks.check_smooth_at_symmetry(checks.Evaluate(random_potential({}, torch.float64), "a"), atoms)
    with pytest.raises(AssertionError):
        checks.check_smooth_at_symmetry(
            checks.Evaluate(random_potential({"softening": 0.0}, torch.float64), "a"), atoms
        )


def test_detached_modulation_is_not_conservative_and_says_so():
    exact = random_potential({}, torch.float64)
    detached = random_potential({"detach_modulation": True}, torch.float64)
    atoms = waters(3, None, seed=2)
    assert exact.conservative and not detached.conservative
    reference = checks.Evaluate(exact, "a")
    checks.check_forces(reference, reference, atoms)
    with pytest.raises(AssertionError):
        checks.check_forces(checks.Evaluate(detached, "a"), reference, atoms)
    found = checks.Evaluate(detached, "a")(Systems.from_atoms(atoms))
    assert found.forces.sum(0).abs().max() < 1e-9  # the net force is zero all the same


def test_direct_forces_are_those_of_the_vector_head():
    direct = random_potential({"forces": "direct"}, torch.float64)
    assert not direct.conservative
    systems = Systems.from_atoms(waters(3, None, seed=2))
    found = checks.Evaluate(direct, "a")(systems)
    exact = checks.Evaluate(random_potential({}, torch.float64), "a")(systems)
    assert torch.equal(found.energy, exact.energy)
    assert (found.forces - exact.forces).abs().max() > 1e-3
    checks.check_orthogonal(
        checks.Evaluate(direct, "a"), waters(3, None, seed=2), checks.rotation(np.random.default_rng(1))
    )
