"""Velocity rescaling and Nosé-Hoover chains against ASE's own steps, theory of the kinetic energy, conserved energy."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from scipy.stats import chi2, kstest

from omnicalc.errors import RunError
from omnicalc.md import bussi as bussi_file
from omnicalc.md.bussi import bussi
from omnicalc.md.integrators import Integration, baoab, velocity_verlet
from omnicalc.md.nose_hoover import chain_energy, nose_hoover, start_chain
from omnicalc.md.observables import kinetic_energy
from omnicalc.md.state import State, remove_com_velocity
from omnicalc.systems import Systems

from .statistics import ks_probability
from .toy import Harmonic, Pairs, ToyCalculator, argon, forces_fn, state_of, thermal

MASS, KELVIN, N = 12.0, 300.0, 6
KT = units.kB * KELVIN


class Ring:
    """Atoms on a ring of springs, harmonic and quartic in each component: chaotic, cheap, momentum is conserved."""

    def __call__(self, positions: torch.Tensor) -> SimpleNamespace:
        d = positions - positions.roll(1, 0)
        pull = 3.0 * d + 40.0 * d**3
        energy = (1.5 * d.square() + 10.0 * d**4).sum().reshape(1)
        return SimpleNamespace(energy=energy, forces=pull.roll(-1, 0) - pull)


def ring_state(com_removed: bool, n: int = N) -> tuple[Ring, State]:
    velocities, masses = thermal(n, MASS, KELVIN, seed=3), torch.full((n,), MASS, dtype=torch.float64)
    if com_removed:
        velocities = remove_com_velocity(velocities, masses)
    positions = 0.1 * thermal(n, 1.0, 3000.0, seed=4)
    more = {"com_removed": com_removed, "bath": start_chain(positions)}
    return Ring(), state_of(positions, velocities, masses, Ring(), **more)


def settings(timestep_fs: float = 2.0, time_fs: float = 20.0, friction: float = 0.02) -> Integration:
    return Integration.from_fs(timestep_fs, KELVIN, friction, time=time_fs * units.fs)


# one step of ASE


def argon_pair() -> tuple[Atoms, Pairs, State]:
    """The same atoms for ASE and for us, nothing done to their centre of mass."""
    atoms = argon()
    bound = Pairs(Systems.from_atoms(atoms))
    masses = torch.tensor(atoms.get_masses())
    positions = torch.tensor(atoms.positions)
    state = state_of(positions, thermal(32, 39.95, 90), masses, bound, bath=start_chain(positions))
    atoms.calc = ToyCalculator(bound)
    atoms.set_velocities(state.velocities.numpy())
    return atoms, bound, state


def test_bussi_equals_ase(monkeypatch):
    atoms, bound, state = argon_pair()
    draws = np.random.default_rng(1)
    normals, squares = draws.normal(size=5), draws.chisquare(95, size=5)
    given = iter(normals), iter(squares)
    rng = SimpleNamespace(standard_normal=lambda: next(given[0]), standard_gamma=lambda shape: next(given[1]) / 2)
    dynamics = Bussi(atoms, 4 * units.fs, temperature_K=90, taut=30 * units.fs, rng=rng)
    plan = Integration.from_fs(4.0, 90.0, time=30 * units.fs)
    alpha = bussi_file.factor
    for k in range(5):
        monkeypatch.setattr(
            bussi_file,
            "factor",
            lambda kinetic, freedom, plan, *_, k=k: alpha(kinetic, freedom, plan, normals[k], squares[k]),
        )
        state = bussi(state, forces_fn(bound), plan)
        dynamics.step()
        assert np.abs(state.positions.numpy() - atoms.positions).max() < 1e-13
        assert np.abs(state.velocities.numpy() - atoms.get_velocities()).max() < 1e-14
    assert float(state.heat) == pytest.approx(dynamics.transferred_energy, rel=1e-9)


def test_nose_hoover_equals_ase():
    atoms, bound, state = argon_pair()
    dynamics = NoseHooverChainNVT(atoms, 4 * units.fs, temperature_K=60, tdamp=40 * units.fs)
    plan = Integration.from_fs(4.0, 60.0, time=40 * units.fs)
    for _ in range(5):
        state = nose_hoover(state, forces_fn(bound), plan)
        dynamics.step()
        assert np.abs(state.positions.numpy() - atoms.positions).max() < 1e-12
        assert np.abs(state.velocities.numpy() - atoms.get_velocities()).max() < 1e-13
    conserved = float(state.energy) + kinetic_energy(state) + chain_energy(state.bath, 96, plan)
    assert conserved == pytest.approx(dynamics.get_conserved_energy(), abs=1e-9)


# the distribution of the kinetic energy: 2K/kT is chi-squared of the degrees of freedom


def kinetic_energies(
    step, plan: Integration, com_removed: bool, steps: int, every: int, change=lambda s: s
) -> np.ndarray:
    """2K/kT along a run, for the theory of :func:`probability`."""
    ring, state = ring_state(com_removed)
    state, forces, found = change(state), forces_fn(ring), []
    for k in range(steps):
        state = step(state, forces, plan)
        if k >= steps // 20 and k % every == 0:
            found.append(2 * kinetic_energy(state) / KT)
    return np.array(found)


def probability(values: np.ndarray, com_removed: bool) -> float:
    return ks_probability(values, chi2(3 * N - 3 * com_removed).cdf)


def all_atoms_count(state: State) -> State:
    """Wrong variant: the resting centre of mass counts as three degrees of freedom."""
    return replace(state, degrees_of_freedom=3 * state.n_atoms)


def berendsen(state: State, forces_fn, plan: Integration) -> State:
    """Wrong variant: velocities are scaled towards the target without noise."""
    kinetic, target = kinetic_energy(state), 0.5 * state.degrees_of_freedom * KT
    c = np.exp(-plan.timestep / plan.time)
    alpha = np.sqrt(c + (1 - c) * target / kinetic)
    return velocity_verlet(replace(state, velocities=alpha * state.velocities), forces_fn, plan)


def noise_too_strong(state: State, forces_fn, plan: Integration) -> State:
    """Wrong variant: noise of a bath a quarter hotter."""
    return baoab(state, forces_fn, replace(plan, temperature_K=1.25 * KELVIN))


RIGHT = {
    "langevin": (baoab, settings(1.0, friction=0.05), False),
    "bussi": (bussi, settings(1.0, 20.0), True),
    "nhc": (nose_hoover, settings(1.0, 40.0), True),
}


@pytest.mark.parametrize("name", RIGHT)
def test_kinetic_energy_is_chi_squared(name):
    step, plan, com_removed = RIGHT[name]
    assert probability(kinetic_energies(step, plan, com_removed, 8_000, 8), com_removed) > 0.01


WRONG = {
    "langevin, noise too strong": (noise_too_strong, settings(1.0, friction=0.05), False, lambda s: s),
    "bussi, wrong degrees of freedom": (bussi, settings(1.0, 20.0), True, all_atoms_count),
    "nhc, wrong degrees of freedom": (nose_hoover, settings(1.0, 40.0), True, all_atoms_count),
    "no noise": (berendsen, settings(1.0, 5.0), True, lambda s: s),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_kinetic_energies_are_seen(name):
    step, plan, com_removed, change = WRONG[name]
    assert probability(kinetic_energies(step, plan, com_removed, 8_000, 8, change), com_removed) < 1e-4


@pytest.mark.parametrize("freedom", [1, 2, 3])
def test_the_factor_of_bussi_keeps_a_chi_squared(freedom):
    """Without any dynamics: a thermal kinetic energy stays thermal, whatever the time constant."""
    rng, plan = np.random.default_rng(5), settings(1.0, 2.0)
    kinetic = 0.5 * KT * rng.chisquare(freedom, size=4000)
    normal, squares = rng.normal(size=4000), rng.chisquare(freedom - 1, size=4000) if freedom > 1 else np.zeros(4000)
    after = [
        k * bussi_file.factor(k, freedom, plan, r, s) ** 2 for k, r, s in zip(kinetic, normal, squares, strict=True)
    ]
    assert kstest(2 * np.array(after) / KT, chi2(freedom).cdf).pvalue > 0.01
    wrong = [
        k * bussi_file.factor(k, freedom, plan, r, s + r * r) ** 2
        for k, r, s in zip(kinetic, normal, squares, strict=True)
    ]
    assert kstest(2 * np.array(wrong) / KT, chi2(freedom).cdf).pvalue < 1e-4


@pytest.mark.parametrize(("scale", "words"), [(0.0, "0.0 eV.*--thermostat langevin"), (1e200, "inf eV.*--timestep")])
def test_velocities_that_no_factor_makes_thermal(scale, words):
    state = of_two(scale)
    with pytest.raises(RunError, match=f"at step 0 the kinetic energy is {words}"):
        bussi(state, forces_fn(Harmonic(state.positions)), Integration.from_fs(1.0, 300.0, time=100.0))


def test_velocities_that_no_chain_follows():
    state = replace(of_two(1e120), bath=torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(RunError, match="Nosé-Hoover chain follows.*--timestep"):
        nose_hoover(state, forces_fn(Harmonic(state.positions)), Integration.from_fs(1.0, 300.0, time=100.0))


def of_two(scale: float):
    """Two atoms with velocities of about ``scale``."""
    positions, masses = torch.zeros(2, 3, dtype=torch.float64), torch.full((2,), 16.0, dtype=torch.float64)
    return state_of(positions, scale * thermal(2, 16.0, 300.0), masses, Harmonic(positions))


def test_one_degree_of_freedom_changes_its_direction():
    """The sign of alpha: without it a single velocity would never turn around."""
    plan = settings(1.0, 2.0)
    signs = {np.sign(bussi_file.factor(0.5 * KT, 1, plan, r, 0.0)) for r in np.linspace(-3, 3, 50)}
    assert signs == {-1.0, 1.0}


# conserved energies


def conserved_energy(step, timestep_fs: float, with_heat: bool = True) -> float:
    """Largest change of the conserved energy in 1 ps."""
    ring, state = ring_state(True)
    plan, forces, found = settings(timestep_fs), forces_fn(ring), []
    for _ in range(round(1000 / timestep_fs)):
        state = step(state, forces, plan)
        energy = float(state.energy) + kinetic_energy(state)
        if with_heat:
            energy -= float(state.heat)
            if step is nose_hoover:
                energy += chain_energy(state.bath, state.degrees_of_freedom, plan)
        found.append(energy)
    return float(np.ptp(found))


@pytest.mark.parametrize("step", [nose_hoover, bussi, baoab])
def test_what_is_conserved(step):
    """It changes by the error of the time step only; what is left out (the wrong variant) is far larger."""
    fine, coarse = conserved_energy(step, 0.5), conserved_energy(step, 1.0)
    assert coarse < 0.02 and 2.5 < coarse / fine < 6.5
    assert conserved_energy(step, 0.5, with_heat=False) > 20 * fine


# both


@pytest.mark.parametrize("step", [bussi, nose_hoover])
def test_steps_are_pure_and_take_one_force_call(step):
    ring, state = ring_state(True)
    before = {k: np.copy(v) for k, v in state.to_arrays().items()}
    calls = []
    counted = forces_fn(lambda positions: calls.append(1) or ring(positions))
    a, b = step(state, counted, settings()), step(state, counted, settings())
    assert len(calls) == 2 and a.step == 1
    for name in ("positions", "velocities", "bath", "heat"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert all(np.array_equal(v, before[k], equal_nan=True) for k, v in state.to_arrays().items())


@pytest.mark.parametrize("step", [bussi, nose_hoover])
def test_the_centre_of_mass_stays_at_rest(step):
    ring, state = ring_state(True)
    state = replace(state, velocities=state.velocities + 0.01)  # as rounding errors would, only sooner
    for _ in range(3):
        state = step(state, forces_fn(ring), settings())
    assert (state.masses[:, None] * state.velocities).sum(dim=0).abs().max() < 1e-12
