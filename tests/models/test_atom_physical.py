"""The decoder of our own: symmetries, motion without a network, and time."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from omnicalc.decoding.start_batch import batch_of
from omnicalc.errors import InputError, WeightsError
from omnicalc.models.atom import rigid
from omnicalc.models.atom.physical import (
    PhysicalAtom,
    PhysicalConfig,
    Start,
    first_guess,
    masses_of,
)
from tests.tiny_decoder import TINY, moving, tiny_network

TIMES = [20.0, 100.0, 250.0]
TURN = rigid.rotation(torch.tensor([0.4, -1.1, 2.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def network() -> PhysicalAtom:
    return tiny_network().double()


def changed(start: Start, turn=None, shift=0.0, boost=0.0) -> Start:
    turn = torch.eye(3, dtype=torch.float64) if turn is None else turn
    return Start(start.numbers, start.x @ turn.T + shift, start.v @ turn.T + boost)


def not_zero(network, start, times):
    left_over = network(start, times) - first_guess(start, times).frames
    assert left_over.abs().max() > 1e-2  # else the tests below would be about the guess alone
    return left_over


@pytest.mark.parametrize("turn", [TURN, -TURN], ids=["rotation", "mirror"])
def test_turns_with_the_molecule(network, turn):
    start, times = batch_of(moving(), TIMES)
    not_zero(network, start, times)
    found, wanted = network(changed(start, turn), times), network(start, times) @ turn.T
    assert (found - wanted).abs().max() < 1e-12
    stretched = turn * torch.tensor([1.0, 1.0, 1.01], dtype=torch.float64)  # no rotation: has to be noticed
    assert (network(changed(start, stretched), times) - network(start, times) @ stretched.T).abs().max() > 1e-4


def test_shifts_and_drifts_with_the_molecule(network):
    start, times = batch_of(moving(), TIMES)
    shift, boost = torch.tensor([3.0, -2.0, 9.0]), torch.tensor([0.01, 0.0, -0.02])
    found = network(changed(start, shift=shift, boost=boost), times)
    wanted = network(start, times) + shift + times[..., None, None] * boost
    assert (found - wanted).abs().max() < 1e-6
    centred = first_guess(start, times)
    assert not torch.allclose(centred.x, start.x)  # ethanol does not lie on its centre of mass


def test_order_padding_and_batches_do_not_matter(network):
    ethanol, times = batch_of(moving(), TIMES)
    water, _ = batch_of(moving("H2O", seed=1), TIMES)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    swapped = Start(ethanol.numbers[:, order], ethanol.x[:, order], ethanol.v[:, order])
    alone = network(ethanol, times)
    assert (network(swapped, times) - alone[:, :, order]).abs().max() < 1e-12
    padded = Start(*(torch.cat([t, t.new_zeros(1, 6, *t.shape[2:])], 1) for t in (water.numbers, water.x, water.v)))
    pair = Start(*(torch.cat(both) for both in zip(vars(ethanol).values(), vars(padded).values(), strict=True)))
    both = network(pair, times.expand(2, -1))
    assert (both[0] - alone[0]).abs().max() < 1e-12
    assert (both[1, :, :3] - network(water, times)[0]).abs().max() < 1e-12


def test_momentum_is_kept(network):
    start, times = batch_of(moving(), TIMES)
    weights = masses_of(start.numbers)
    found = network(start, times)
    middle = (weights[..., None] * found[0]).sum(1) / weights.sum()
    drift = rigid.centre(start.v, weights)[0]
    wanted = rigid.centre(start.x, weights)[0] + times[0, :, None] * drift
    assert (middle - wanted).abs().max() < 1e-12


def test_the_start_is_met(network):
    """At short times the frames are the start, moved by what is left of the velocities within the onset."""
    start, times = batch_of(moving(), [1e-6, 1e-3])
    assert (network(start, times) - start.x).abs().max() < 1e-3


def test_any_times_and_numbers_of_frames(network):
    start, _ = batch_of(moving(), TIMES)
    for count in (1, 5, 12):
        times = torch.linspace(10, 400, count, dtype=torch.float64)[None]
        assert network(start, times).shape == (1, count, 9, 3)
    early, late = (network(start, torch.tensor([[t]], dtype=torch.float64)) for t in (40.0, 400.0))
    moments = torch.tensor([[40.0], [400.0]], dtype=torch.float64)
    left = [f - first_guess(start, t[None]).frames for f, t in zip((early, late), moments, strict=True)]
    assert (left[0] - left[1]).abs().max() > 1e-3  # physical time is seen


def test_single_precision_is_close(network):
    start, times = batch_of(moving(), TIMES)
    single = tiny_network()(Start(start.numbers, start.x.float(), start.v.float()), times.float())
    assert (single - network(start, times)).abs().max() < 1e-4


def test_unknown_elements_are_named(network):
    with pytest.raises(InputError, match="does not know S"):
        network(*batch_of(moving("SH2"), TIMES))


def test_settings_that_make_no_network():
    with pytest.raises(WeightsError, match="even number"):
        PhysicalConfig(vectors=9)
    with pytest.raises(WeightsError, match="one of rigid"):
        PhysicalConfig(guess="wild")
    with pytest.raises(WeightsError, match="unknown settings"):
        PhysicalConfig.from_dict({"width": 3})
    with pytest.raises(WeightsError, match="vectors = 'many'; a value such as 24"):
        PhysicalConfig.from_dict({"vectors": "many"})
    assert PhysicalConfig.from_dict(TINY.to_dict()) == TINY


def test_a_rigid_body_turns_freely():
    """Against SciPy's integration of Euler's equations; the constant angular velocity fails."""
    start, _ = batch_of(moving(speed=0.03), TIMES)
    masses = masses_of(start.numbers)
    x, v = (t - rigid.centre(t, masses) for t in (start.x, start.v))
    momentum, inverse = rigid.angular_momentum(x, v, masses), rigid.inertia_inverse(x, masses)
    times = torch.tensor([[50.0, 200.0, 500.0]], dtype=torch.float64)

    def change(_, flat):
        turned = flat.reshape(3, 3)
        omega = turned @ inverse[0].numpy() @ turned.T @ momentum[0].numpy()
        return np.cross(omega, turned, axisb=0, axisc=0).ravel()

    solved = solve_ivp(change, (0, 500), np.eye(3).ravel(), t_eval=times[0].numpy(), rtol=1e-10, atol=1e-12)
    wanted = torch.from_numpy(solved.y.T.reshape(3, 3, 3))
    found = rigid.free_rotation(momentum, inverse, times)[0]
    assert (found - wanted).abs().max() < 5e-3  # at several thousand kelvin
    assert (rigid.constant_rotation(momentum, inverse, times)[0] - wanted).abs().max() > 0.2
    unit = found @ found.transpose(1, 2) - torch.eye(3)
    assert unit.abs().max() < 1e-6


@pytest.mark.parametrize("name", ["H2O", "CO2", "H"])
def test_linear_molecules_and_atoms_have_finite_guesses(name):
    start, times = batch_of(moving(name) if name != "H" else moving("CH4")[:1], TIMES)
    for kind in ("rigid", "constant-rotation", "ballistic", "start"):
        assert torch.isfinite(first_guess(start, times, kind).frames).all()
    if name == "CO2":  # nothing turns about the axis of the molecule
        guess = first_guess(start, times)
        axis = guess.x[0, 1] - guess.x[0, 2]
        assert torch.linalg.cross(guess.turning[0], axis.expand(3, 3)).abs().max() > 1e-4
        assert (guess.turning[0] @ axis).abs().max() < 1e-9


def test_superposition_undoes_a_rigid_motion():
    start, _ = batch_of(moving(), TIMES)
    masses = masses_of(start.numbers)
    moved = start.x @ TURN.T + 4.0
    assert (rigid.superposed(moved, start.x, masses) - start.x).abs().max() < 1e-12
    mirrored = start.x * torch.tensor([1.0, 1.0, -1.0])
    bent = mirrored + 0.3 * torch.randn(mirrored.shape, generator=torch.Generator().manual_seed(1))
    assert (rigid.superposed(bent, start.x, masses) - start.x).abs().max() > 0.1  # never by a reflection
