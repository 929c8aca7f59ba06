"""Quantum thermal bath: oscillators have the energy of quantum theory; what goes wrong without its corrections."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import units

from omnicalc.errors import InputError
from omnicalc.md import quantum as quantum_file
from omnicalc.md.integrators import Integration
from omnicalc.md.quantum import HBAR, PER_CM, QuantumBath, oscillator_energy, quantum
from omnicalc.md.settings import Settings

from .toy import forces_fn, state_of, thermal

KELVIN, MASS = 300.0, 1.0
OMEGA = PER_CM * np.array([500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 3700.0, 4000.0])


def test_constants():
    assert pytest.approx(1.0 / 8065.544, rel=1e-6) == HBAR * PER_CM  # eV per 1/cm
    assert oscillator_energy(np.array([0.0]), KELVIN)[0] == pytest.approx(units.kB * KELVIN)
    assert oscillator_energy(OMEGA, 1.0)[-1] == pytest.approx(0.5 * HBAR * OMEGA[-1])


def prepared(timestep_fs: float, friction_per_fs: float) -> QuantumBath:
    like = torch.zeros(1, dtype=torch.float64)
    return QuantumBath.prepare(KELVIN, friction_per_fs / units.fs, timestep_fs * units.fs, like)


class Wells:
    """A spring of its own for each atom."""

    stiffness = torch.tensor(MASS * OMEGA**2)[:, None]

    def __call__(self, positions: torch.Tensor) -> SimpleNamespace:
        energy = 0.5 * (self.stiffness * positions.square()).sum().reshape(1)
        return SimpleNamespace(energy=energy, forces=-self.stiffness * positions)


class Nothing:
    def __call__(self, positions: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(energy=torch.zeros(1), forces=torch.zeros_like(positions))


def energies(monkeypatch, friction_per_fs: float, timestep_fs: float = 0.25, bath: QuantumBath | None = None):
    """Mean energy over theory of oscillators of all frequencies, without sampling.

    The oscillators answer linearly to independent normals, so a mean square is the sum of the squared answers to a
    single one, shared among the steps for which its value is held.
    """
    bath = prepared(timestep_fs, friction_per_fs) if bath is None else bath
    n = len(OMEGA)
    plan = Integration.from_fs(timestep_fs, KELVIN, friction_per_fs, quantum=bath)
    zero, masses = torch.zeros(n, 3, dtype=torch.float64), torch.full((n,), MASS, dtype=torch.float64)
    impulse = bath.start(n, torch.Generator()).zero_()
    impulse[len(bath.weights) - 2] = 1.0  # the newest draw
    state, forces = state_of(zero, zero, masses, Wells(), bath=impulse), forces_fn(Wells())
    total = np.zeros(n)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *shape, generator=None, **more: torch.zeros(*shape, **more))
        for _ in range(round(10.0 / friction_per_fs / timestep_fs)):
            state = quantum(state, forces, plan)
            x, v = state.positions[:, 0].numpy(), state.velocities[:, 0].numpy()
            total += 0.5 * MASS * (OMEGA**2 * x * x + v * v)
    return total / bath.hold / oscillator_energy(OMEGA, KELVIN)


@pytest.mark.parametrize("friction_per_fs", [0.003, 0.01])
def test_oscillators_have_the_energy_of_quantum_theory(monkeypatch, friction_per_fs):
    """Within 1 % of (ħω/2) coth(ħω/2kT) from 500 to 4000 1/cm."""
    assert np.abs(energies(monkeypatch, friction_per_fs) - 1).max() < 0.01


def without_deconvolution(omega, kelvin, friction):
    return oscillator_energy(omega, kelvin)


def classical(omega, kelvin, friction):
    return np.full_like(omega, units.kB * kelvin)


WRONG = {
    "deconvolved": without_deconvolution,
    "held": lambda omega, hold, timestep: np.ones_like(omega),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_without_a_correction(monkeypatch, name):
    monkeypatch.setattr(quantum_file, f"_{name}" if name == "held" else name, WRONG[name])
    assert np.abs(energies(monkeypatch, 0.01) - 1).max() > 0.02


def test_a_classical_bath_has_no_zero_point_energy(monkeypatch):
    monkeypatch.setattr(quantum_file, "deconvolved", classical)
    ratio = energies(monkeypatch, 0.01)
    assert ratio == pytest.approx(units.kB * KELVIN / oscillator_energy(OMEGA, KELVIN), rel=0.03) and ratio[-1] < 0.12


def test_the_noise_of_a_run_has_the_variance_of_its_filter():
    bath, generator = prepared(0.5, 0.01), torch.Generator().manual_seed(1)
    memory, values = bath.start(400, generator), []
    for step in range(0, 60 * bath.hold, bath.hold):
        if step % bath.steps == 0:
            before, memory = memory, bath.next(memory, generator)
        values.append(bath.value(memory, step))
    assert float(torch.stack(values).square().mean()) == pytest.approx(float(bath.weights.square().sum()), rel=0.03)
    size, count = len(bath.weights), len(bath.block)
    draws = torch.cat([before[: size - 1], memory[size - 1 - count : size - 1]])
    for k in range(12):  # the last 12 of 60 values; each is made of the W draws up to its own
        expected = torch.einsum("w,wna->na", bath.weights, draws[k : k + size])
        assert torch.allclose(values[48 + k], expected, atol=1e-12)
    assert (bath.hold, count) == (4, 16)


def test_a_run_samples_the_energy():
    """A hundred atoms of each of two frequencies, with noise."""
    bath, friction = prepared(0.5, 0.02), 0.02
    omega = PER_CM * np.repeat([1000.0, 3700.0], 100)[:, None]
    masses, generator = torch.full((200,), MASS, dtype=torch.float64), torch.Generator().manual_seed(2)
    stiffness = torch.tensor(MASS * omega**2)

    def forces(x):
        return torch.zeros(1), -stiffness * x

    zero = torch.zeros(200, 3, dtype=torch.float64)
    state = state_of(zero, thermal(200, MASS, KELVIN), masses, Nothing(), bath=bath.start(200, generator))
    plan, found = Integration.from_fs(0.5, KELVIN, friction, quantum=bath), []
    for k in range(1500):
        state = quantum(state, forces, plan)
        if k > 500 and k % 20 == 0:
            x, v = state.positions.numpy(), state.velocities.numpy()
            energy = 0.5 * MASS * (omega**2 * x * x + v * v) / oscillator_energy(omega, KELVIN)
            found.append([energy[:100].mean(), energy[100:].mean()])
    assert np.mean(found, axis=0) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    "given",
    [
        {"ensemble": "npt"},
        {"temperature_end_K": 400.0},
        {"timestep_fs": 3.0},
        {"temperature_K": 5.0},
        {"hydrogen_mass": 3.0},
    ],
)
def test_what_the_quantum_bath_refuses(given):
    with pytest.raises(InputError):
        Settings(thermostat="qtb", **given)
