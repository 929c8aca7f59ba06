import numpy as np
import pytest
import torch
from ase import units

from omnicalc.errors import InputError, RunError
from omnicalc.md.observables import configurational_temperature, kinetic_energy, temperature
from omnicalc.systems import Systems

from .toy import Harmonic, Pairs, argon, state_of

STIFFNESS, KELVIN = 20.0, 250.0
CENTRE = torch.zeros(30, 3, dtype=torch.float64)


def frames(kelvin: float, count: int = 60) -> torch.Tensor:
    """Exact independent samples of a harmonic well."""
    generator = torch.Generator().manual_seed(5)
    width = (units.kB * kelvin / STIFFNESS) ** 0.5
    return width * torch.randn(count, *CENTRE.shape, dtype=torch.float64, generator=generator)


def test_kinetic_energy_and_temperature():
    v = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    state = state_of(CENTRE[:2], v, torch.tensor([2.0, 3.0], dtype=torch.float64), Harmonic(CENTRE[:2]))
    assert kinetic_energy(state) == pytest.approx(0.5 * (2 * 9 + 3 * 1))
    assert temperature(1.5 * units.kB * 300, 3) == pytest.approx(300)
    assert temperature(0.0, 0) == 0.0


def test_configurational_temperature_of_a_harmonic_well():
    found = configurational_temperature(frames(KELVIN), Harmonic(CENTRE, STIFFNESS))
    assert abs(found.temperature_K - KELVIN) < 3.5 * found.standard_error_K
    assert found.standard_error_K == pytest.approx(
        KELVIN * np.sqrt(2 / (90 * 60)), rel=0.5
    )  # known: chi-squared, 5400 terms


def test_wrong_temperature_is_seen():
    found = configurational_temperature(frames(1.2 * KELVIN), Harmonic(CENTRE, STIFFNESS))
    assert found.temperature_K - KELVIN > 5 * found.standard_error_K


def test_wrong_forces_are_seen():
    """Frames of one stiffness judged with forces of another."""
    found = configurational_temperature(frames(KELVIN), Harmonic(CENTRE, 1.3 * STIFFNESS))
    assert abs(found.temperature_K - KELVIN) > 5 * found.standard_error_K


def test_the_probes_give_the_laplacian():
    """Off-diagonal Hessian elements average out: against the trace by differences along every coordinate."""
    atoms = argon()
    bound = Pairs(Systems.from_atoms(atoms))
    x, h, trace = torch.tensor(atoms.positions), 1e-3, 0.0
    for k in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[k] = h
        trace -= float((bound(x + step).forces - bound(x - step).forces).view(-1)[k]) / (2 * h)
    square = float(bound(x).forces.square().sum())
    found = configurational_temperature([x, x], bound, probes=150, blocks=2)
    assert found.temperature_K == pytest.approx(square / trace / units.kB, rel=0.05)


def test_error_counts_correlated_frames_once():
    """Each frame ten times over says nothing new: the blocked error stays, a naive one would shrink."""
    few = frames(KELVIN, 20)
    single = configurational_temperature(few, Harmonic(CENTRE, STIFFNESS), blocks=20)
    repeated = configurational_temperature(few.repeat_interleave(10, dim=0), Harmonic(CENTRE, STIFFNESS), blocks=20)
    naive = configurational_temperature(few.repeat_interleave(10, dim=0), Harmonic(CENTRE, STIFFNESS), blocks=200)
    assert repeated.standard_error_K == pytest.approx(single.standard_error_K, rel=0.05)
    assert naive.standard_error_K < 0.5 * single.standard_error_K


def test_refusals():
    with pytest.raises(InputError, match="at least 2"):
        configurational_temperature(frames(KELVIN)[:1], Harmonic(CENTRE, STIFFNESS))
    with pytest.raises(InputError, match="displacement"):
        configurational_temperature(frames(KELVIN), Harmonic(CENTRE, STIFFNESS), displacement=0)
    with pytest.raises(RunError, match="Laplacian"):
        configurational_temperature(frames(KELVIN), Harmonic(CENTRE, -STIFFNESS))
