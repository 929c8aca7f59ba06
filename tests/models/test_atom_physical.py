"""The decoder of our own: symmetries, motion without a network, and time."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
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


def thermal(name: str, seed: int = 0, kelvin: float = 300.0, off: float = 0.0) -> Start:
    """A molecule of ASE's collection, atoms ``off`` Å from where they belong, with velocities of a temperature."""
    atoms, rng = molecule(name), np.random.default_rng(seed)
    atoms.positions += off * rng.normal(size=(len(atoms), 3))
    atoms.set_velocities(rng.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * kelvin / atoms.get_masses())[:, None])
    return batch_of(atoms, TIMES)[0]


def bent_carbon_dioxide(off: float) -> Start:
    """Both bends a quarter of a period apart: the carbon circles about the axis, 0.126 rad/fs."""
    atoms = Atoms("OCO", [[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]])
    mode, zero = off * np.array([0.375, -1.0, 0.375]), np.zeros(3)
    atoms.positions[:, 0] += mode
    atoms.set_velocities(np.stack([zero, 0.126 * mode, zero], 1) / units.fs)
    return batch_of(atoms, TIMES)[0]


def rotor(start: Start) -> tuple[torch.Tensor, torch.Tensor]:
    """Angular momentum and inverse of the inertia tensor."""
    masses = masses_of(start.numbers)
    x, v = (t - rigid.centre(t, masses) for t in (start.x, start.v))
    return rigid.angular_momentum(x, v, masses), rigid.inertia_inverse(x, masses)


def solved(momentum: torch.Tensor, inverse: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Rotations (T, 3, 3) by SciPy's integration of Euler's equations."""

    def change(_, flat):
        turned = flat.reshape(3, 3)
        omega = turned @ inverse[0].numpy() @ turned.T @ momentum[0].numpy()
        return np.cross(omega, turned, axisb=0, axisc=0).ravel()

    moments = times[0].numpy()
    found = solve_ivp(change, (0, moments[-1]), np.eye(3).ravel(), "DOP853", moments, rtol=1e-9, atol=1e-11)
    return torch.from_numpy(found.y.T.reshape(-1, 3, 3))


ROTORS = {
    **{f"water-{k}": thermal("H2O", k) for k in range(4)},
    "hot-water": thermal("H2O", 1, 3000.0),
    "formaldehyde": thermal("H2CO", 1, 1000.0, off=0.05),
    "hydrogen-cyanide": thermal("HCN", 0, off=0.05),
    "bent-cyanide": thermal("HCN", 2, off=0.2),
    **{f"carbon-dioxide-{off}": bent_carbon_dioxide(off) for off in (0.02, 0.06, 0.12)},
}


@pytest.mark.parametrize("start", ROTORS.values(), ids=ROTORS)
def test_a_rigid_body_turns_freely(start):
    """Against SciPy, however fast; the constant angular velocity fails. Energy, momentum and shape stay."""
    momentum, inverse = rotor(start)
    times = torch.tensor([[1.0, 50.0, 200.0, 500.0, 500.1]], dtype=torch.float64)
    found = rigid.free_rotation(momentum, inverse, times)[0]
    assert (found - solved(momentum, inverse, times)).abs().max() < 1e-3
    assert (found @ found.transpose(1, 2) - torch.eye(3)).abs().max() < 1e-9
    omega = found @ inverse @ found.transpose(1, 2) @ momentum[0]
    energy, wanted = 0.5 * omega @ momentum[0], 0.5 * momentum[0] @ inverse[0] @ momentum[0]
    assert (energy - wanted).abs().max() < 1e-5 * wanted + 1e-18
    guess, masses = first_guess(start, times), masses_of(start.numbers)
    body, near = (start.x[0], guess.frames[0])
    assert (torch.cdist(near, near) - torch.cdist(body, body)).abs().max() < 1e-6
    if torch.linalg.matrix_rank(inverse[0]) == 3:
        x, v = 0.5 * (near[3:4] + near[4:]), (near[4:] - near[3:4]) / 0.1
        x, v = (t - rigid.centre(t, masses) for t in (x, v))
        lost = rigid.angular_momentum(x, v, masses) - momentum
        assert lost.norm() < 1e-3 * momentum.norm()


def test_a_constant_angular_velocity_is_not_enough():
    start, _ = batch_of(moving(speed=0.03), TIMES)  # at several thousand kelvin
    momentum, inverse = rotor(start)
    times = torch.tensor([[50.0, 200.0, 500.0]], dtype=torch.float64)
    wanted = solved(momentum, inverse, times)
    assert (rigid.free_rotation(momentum, inverse, times)[0] - wanted).abs().max() < 1e-5
    assert (rigid.constant_rotation(momentum, inverse, times)[0] - wanted).abs().max() > 0.2


def test_rotors_of_a_batch_turn_as_they_do_alone():
    """Slow ones and fast ones take steps of their own."""
    alone = [first_guess(start, torch.tensor([TIMES], dtype=torch.float64)).frames for start in ROTORS.values()]
    most = max(x.shape[2] for x in alone)
    padded = [
        [torch.cat([t, t.new_zeros(1, most - t.shape[1], *t.shape[2:])], 1) for t in vars(start).values()]
        for start in ROTORS.values()
    ]
    batch = Start(*(torch.cat(parts) for parts in zip(*padded, strict=True)))
    times = torch.tensor([TIMES], dtype=torch.float64).expand(len(alone), -1)
    together = first_guess(batch, times).frames
    for single, one in zip(alone, together, strict=True):
        assert (one[:, : single.shape[2]] - single[0]).abs().max() < 1e-12


def test_a_linear_molecule_that_bends_does_not_spin():
    """Its vibrations have an angular momentum about the axis, and hardly a moment of inertia."""
    for off in (0.02, 0.06, 0.12):
        guess = first_guess(bent_carbon_dioxide(off), torch.tensor([TIMES], dtype=torch.float64))
        assert guess.turning.abs().max() < 1e-9 and guess.inner.abs().max() > 1e-3
    momentum, inverse = rotor(thermal("HOCl"))  # the most elongated bent molecule of ASE's collection
    assert torch.linalg.matrix_rank(inverse[0]) == 3 and momentum.norm() > 0


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
