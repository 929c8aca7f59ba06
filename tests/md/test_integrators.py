"""Integrators against exact results: ASE's own step, and the closed form of a harmonic well."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from scipy.linalg import solve_discrete_lyapunov

from omnicalc.md.integrators import Integration, baoab, velocity_verlet
from omnicalc.md.state import State
from omnicalc.systems import Systems

from .toy import Harmonic, Pairs, ToyCalculator, argon, forces_fn, state_of, thermal

MASS, STIFFNESS, KELVIN = 12.0, 30.0, 300.0
OMEGA = (STIFFNESS / MASS) ** 0.5
KT = units.kB * KELVIN


def argon_state() -> tuple[Atoms, Pairs, State]:
    atoms = argon()
    bound = Pairs(Systems.from_atoms(atoms))
    masses = torch.tensor(atoms.get_masses())
    return (
        atoms,
        bound,
        state_of(torch.tensor(atoms.positions), thermal(len(atoms), 39.95, 90), masses, bound),
    )


# velocity Verlet


def test_velocity_verlet_equals_ase():
    atoms, bound, state = argon_state()
    atoms.calc = ToyCalculator(bound)
    atoms.set_velocities(state.velocities.numpy())
    dynamics = VelocityVerlet(atoms, timestep=4 * units.fs)
    for _ in range(5):
        state = velocity_verlet(state, forces_fn(bound), Integration.from_fs(4.0))
        dynamics.run(1)
        assert np.abs(state.positions.numpy() - atoms.positions).max() < 1e-13
        assert np.abs(state.velocities.numpy() - atoms.get_velocities()).max() < 1e-15
    assert state.step == 5


def half_kick_missing(state: State, forces_fn, settings: Integration) -> State:
    """Wrong variant: the second half kick uses the old forces."""
    new = velocity_verlet(state, forces_fn, settings)
    wrong = new.velocities + 0.5 * settings.timestep * (state.forces - new.forces) / state.masses[:, None]
    return replace(new, velocities=wrong)


def energy_error(step, timestep_fs: float) -> float:
    """Largest deviation of the total energy over 200 fs of argon atoms thrown at each other."""
    _, bound, state = argon_state()
    state = replace(state, velocities=3 * state.velocities)
    energies = []
    for _ in range(round(200 / timestep_fs)):
        state = step(state, forces_fn(bound), Integration.from_fs(timestep_fs))
        kinetic = 0.5 * (state.masses[:, None] * state.velocities.square()).sum()
        energies.append(float(state.energy.sum() + kinetic))
    return np.ptp(energies)


def test_nve_energy_error_is_of_second_order():
    assert 3.7 < energy_error(velocity_verlet, 8.0) / energy_error(velocity_verlet, 4.0) < 4.3
    assert energy_error(half_kick_missing, 8.0) / energy_error(half_kick_missing, 4.0) < 3


def test_velocity_verlet_is_time_reversible():
    _, bound, start = argon_state()
    state = start
    for _ in range(20):
        state = velocity_verlet(state, forces_fn(bound), Integration.from_fs(4.0))
    state = replace(state, velocities=-state.velocities)
    for _ in range(20):
        state = velocity_verlet(state, forces_fn(bound), Integration.from_fs(4.0))
    assert (state.positions - start.positions).abs().max() < 1e-10


# BAOAB: in a harmonic well a step is x, v -> A (x, v) + b ξ; its stationary covariance C solves
# C = A C Aᵀ + b bᵀ exactly.


def stationary_covariance(step, timestep_fs: float, friction_per_fs: float = 0.02) -> np.ndarray:
    """(2, 2) covariance of (x, v): A from two noise-free steps, b from the noise given to an atom at rest."""
    well = Harmonic(torch.zeros(1, 3, dtype=torch.float64), STIFFNESS)
    settings = Integration.from_fs(timestep_fs, KELVIN, friction_per_fs)
    masses = torch.tensor([MASS], dtype=torch.float64)

    def go(x: float, v: float, kelvin: float) -> np.ndarray:
        ones = torch.ones(1, 3, dtype=torch.float64)
        state = step(
            state_of(x * ones, v * ones, masses, well),
            forces_fn(well),
            replace(settings, temperature_K=kelvin),
        )
        return np.array([state.positions[0, 0], state.velocities[0, 0]])

    a = np.column_stack([go(1.0, 0.0, 0.0), go(0.0, 1.0, 0.0)])
    xi = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))[0, 0].item()
    b = go(0.0, 0.0, KELVIN) / xi
    return solve_discrete_lyapunov(a, np.outer(b, b))


def noise_too_strong(state: State, forces_fn, settings: Integration) -> State:
    """Wrong variant: noise of variance kT/m where (1 - c²) kT/m belongs."""
    c = np.exp(-settings.friction * settings.timestep)
    return baoab(state, forces_fn, replace(settings, temperature_K=settings.temperature_K / (1 - c * c)))


def half_kick_twice(state: State, forces_fn, settings: Integration) -> State:
    """Wrong variant: the last half kick is given twice."""
    new = baoab(state, forces_fn, settings)
    return replace(new, velocities=new.velocities + 0.5 * settings.timestep * new.forces / new.masses[:, None])


@pytest.mark.parametrize("timestep_fs", [0.1, 1.0, 4.0, 8.0])
@pytest.mark.parametrize("friction_per_fs", [0.001, 0.02, 0.5])
def test_baoab_positions_are_exact_in_a_harmonic_well(timestep_fs, friction_per_fs):
    covariance = stationary_covariance(baoab, timestep_fs, friction_per_fs)
    h = timestep_fs * units.fs
    assert covariance[0, 0] == pytest.approx(KT / STIFFNESS, rel=1e-9)
    assert covariance[1, 1] == pytest.approx(KT / MASS * (1 - (OMEGA * h) ** 2 / 4), rel=1e-9)
    assert abs(covariance[0, 1]) < 1e-9 * KT


def test_baoab_kinetic_bias_is_of_second_order():
    bias = [stationary_covariance(baoab, h)[1, 1] * MASS / KT - 1 for h in (4.0, 2.0, 1.0)]
    assert bias[0] / bias[1] == pytest.approx(4, rel=1e-6) and bias[1] / bias[2] == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("wrong", [noise_too_strong, half_kick_twice])
def test_wrong_variants_of_baoab_are_seen(wrong):
    assert abs(stationary_covariance(wrong, 4.0)[0, 0] * STIFFNESS / KT - 1) > 0.02


def test_baoab_samples_what_the_theory_says():
    """3 x 3000 oscillators: noise of neighbouring atoms and steps is independent too."""
    n, settings = 3000, Integration.from_fs(4.0, KELVIN, 0.02)
    well = Harmonic(torch.zeros(n, 3, dtype=torch.float64), STIFFNESS)
    masses = torch.full((n,), MASS, dtype=torch.float64)
    state = state_of(torch.zeros(n, 3, dtype=torch.float64), thermal(n, MASS, KELVIN), masses, well)
    x2, v2 = [], []
    for k in range(700):
        state = baoab(state, forces_fn(well), settings)
        if k >= 100 and k % 25 == 0:
            x2.append(float(state.positions.square().mean()) * STIFFNESS / KT)
            v2.append(float(state.velocities.square().mean()) * MASS / KT)
    error = np.sqrt(2 / (3 * n * len(x2)))  # of independent samples; these nearly are
    assert abs(np.mean(x2) - 1) < 6 * error
    assert abs(np.mean(v2) - (1 - (OMEGA * settings.timestep) ** 2 / 4)) < 6 * error


# both


@pytest.mark.parametrize("step", [velocity_verlet, baoab])
def test_steps_are_pure_and_take_one_force_call(step):
    _, bound, state = argon_state()
    calls = []
    counted = forces_fn(lambda positions: calls.append(1) or bound(positions))
    before = {k: np.copy(v) for k, v in state.to_arrays().items()}
    a = step(state, counted, Integration.from_fs(2.0, 90.0, 0.01))
    b = step(state, counted, Integration.from_fs(2.0, 90.0, 0.01))
    assert len(calls) == 2 and a.step == state.step + 1
    assert torch.equal(a.positions, b.positions) and torch.equal(a.velocities, b.velocities)
    assert all(np.array_equal(v, before[k], equal_nan=True) for k, v in state.to_arrays().items())


def test_baoab_noise_differs_from_step_to_step():
    _, bound, state = argon_state()
    cold = replace(state, velocities=torch.zeros_like(state.velocities), forces=torch.zeros_like(state.forces))
    settings = Integration.from_fs(1e-6, 90.0, 1e6)
    one = baoab(cold, forces_fn(bound), settings)
    two = baoab(replace(one, velocities=cold.velocities, forces=cold.forces), forces_fn(bound), settings)
    assert (one.velocities - two.velocities).abs().min() > 0
