import numpy as np
import pytest
import torch
from ase import units

from omnicalc.md.state import State, degrees_of_freedom, draw_velocities, remove_com_velocity

from .toy import Harmonic, state_of, thermal


def some_state() -> State:
    positions = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    masses = torch.tensor([1.0, 16.0, 23.0, 35.5, 1.0], dtype=torch.float64)
    return state_of(
        positions,
        thermal(5, 10.0, 300),
        masses,
        Harmonic(torch.zeros(5, 3, dtype=torch.float64)),
        com_removed=True,
    )


def test_saves_and_restores_all_of_itself():
    state = some_state()
    torch.randn(7, generator=state.generator)  # somewhere inside the random sequence, with a spare normal waiting
    again = State.from_arrays(state.to_arrays())
    for name in ("positions", "velocities", "forces", "energy", "masses"):
        assert torch.equal(getattr(again, name), getattr(state, name)) and getattr(again, name).dtype == torch.float64
    assert (again.step, again.com_removed) == (state.step, state.com_removed)
    assert torch.equal(torch.randn(9, generator=again.generator), torch.randn(9, generator=state.generator))


def test_the_arrays_name_every_field():
    from dataclasses import fields

    kept = {f.name for f in fields(State)} - {"unbiased"}  # only frames need it
    assert kept == set(some_state().to_arrays())


@pytest.mark.parametrize(("removed", "freedom"), [(False, 15), (True, 12)])
def test_degrees_of_freedom(removed, freedom):
    assert degrees_of_freedom(5, removed) == freedom


def test_drawn_velocities_are_maxwell_boltzmann():
    masses = torch.tensor([1.0, 40.0], dtype=torch.float64).repeat_interleave(20000)
    v = draw_velocities(masses, 300.0, torch.Generator().manual_seed(0))
    scaled = (masses[:, None] * v.square() / (units.kB * 300.0)).reshape(2, -1).mean(dim=1)
    assert np.allclose(scaled, 1.0, atol=5 * np.sqrt(2 / 60000))


def test_com_velocity_is_removed():
    state = some_state()
    v = remove_com_velocity(state.velocities, state.masses)
    assert (state.masses[:, None] * v).sum(dim=0).abs().max() < 1e-12
    plain = state.velocities - state.velocities.mean(dim=0)  # the wrong variant: forgets the masses
    assert (state.masses[:, None] * plain).sum(dim=0).abs().max() > 1e-3
