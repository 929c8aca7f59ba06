"""Path integrals: harmonic oscillators have the exact energy for P beads, and runs go on exactly."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.constraints import FixAtoms
from scipy.linalg import solve_discrete_lyapunov

from omnicalc.errors import InputError, RunError
from omnicalc.md.folder import RunFolder
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.integrators import Integration, baoab
from omnicalc.md.job import build_job
from omnicalc.md.observables import kinetic_energy
from omnicalc.md.quantum import HBAR, PER_CM, oscillator_energy
from omnicalc.md.replicas import run_replicas
from omnicalc.md.restart import Restart
from omnicalc.md.ring_polymer import RingPolymer, normal_modes
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.potential import BoundPotential
from omnicalc.systems import Systems
from tests.lennard_jones import lennard_jones

from .conftest import bytes_of
from .toy import Failing, Harmonic, Pairs, argon, forces_fn, job, pairs_job, state_of

KELVIN, MASS = 300.0, 1.008
KT = units.kB * KELVIN


def started(settings: Settings, toy=None):
    toy = pairs_job() if toy is None else toy
    dynamics = RingPolymer(toy, settings)
    return dynamics, initial_state(toy.atoms, dynamics, settings, Guards(settings, toy.atoms, Path(), print))


def oscillator(beads: int, per_cm: float, timestep_fs: float = 0.1):
    """One hydrogen in a well of this frequency, in all three directions."""
    atoms = Atoms("H", [[0.0, 0, 0]])
    atoms.set_masses([MASS])
    well = Harmonic(torch.zeros(1, 3, dtype=torch.float64), MASS * (PER_CM * per_cm) ** 2)
    settings = Settings(beads=beads, temperature_K=KELVIN, timestep_fs=timestep_fs, friction_per_fs=0.02, seed=1)
    return started(settings, job(atoms, well))


def exact(beads: int, omega: float) -> float:
    """Mean potential energy per direction of P beads, (k_B T/2) Σ_k ω²/(ω_k² + ω²), eV: half the energy."""
    k = np.arange(beads)
    inner = 2.0 * beads * KT / HBAR * np.sin(k * math.pi / beads)
    return 0.5 * KT * float((omega**2 / (inner**2 + omega**2)).sum())


def stationary(dynamics, state, monkeypatch) -> np.ndarray:
    """(2P, 2P) covariance of positions and velocities along x, without sampling: C = A C Aᵀ + B Bᵀ, the step being
    linear.
    """
    beads = dynamics.beads

    def go(x, v, noise) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randn", lambda *shape, **more: torch.tensor(noise)[:, None].repeat(1, 3))
            positions, velocities = (torch.tensor(a)[:, None].repeat(1, 3) for a in (x, v))
            _, forces, _ = dynamics.forces(positions)
            new = dynamics.step(replace(state, positions=positions, velocities=velocities, forces=forces))
        return np.concatenate([new.positions[:, 0].numpy(), new.velocities[:, 0].numpy()])

    zero, unit = np.zeros(beads), np.eye(beads)
    a = np.column_stack([*(go(e, zero, zero) for e in unit), *(go(zero, e, zero) for e in unit)])
    b = np.column_stack([go(zero, zero, e) for e in unit])
    return solve_discrete_lyapunov(a, b @ b.T)


def energies(dynamics, state, monkeypatch) -> tuple[float, float, float]:
    """Mean potential, primitive kinetic and virial kinetic energy per direction, eV, of the stationary covariance."""
    c = stationary(dynamics, state, monkeypatch)
    values, vectors = np.linalg.eigh(c[: dynamics.beads, : dynamics.beads])
    total = np.zeros(3)
    for value, vector in zip(np.maximum(values, 0), vectors.T, strict=True):  # a sum over independent directions
        x = torch.tensor(math.sqrt(value) * vector)[:, None].repeat(1, 3)
        energy, forces, _ = dynamics.forces(x)
        at = replace(state, positions=x, energy=energy, forces=forces)
        none = replace(at, positions=0 * x, forces=0 * forces)
        total += [
            float(energy.mean()),
            dynamics.primitive_kinetic(at) - dynamics.primitive_kinetic(none),
            dynamics.virial_kinetic(at) - dynamics.virial_kinetic(none),
        ]
    base = [0.0, dynamics.primitive_kinetic(none), dynamics.virial_kinetic(none)]
    return tuple((total + base) / 3)


@pytest.mark.parametrize("beads", [1, 2, 5, 16])
@pytest.mark.parametrize("per_cm", [500.0, 3700.0])
def test_oscillators_have_the_exact_energy_of_so_many_beads(monkeypatch, beads, per_cm):
    dynamics, state = oscillator(beads, per_cm)
    expected = exact(beads, PER_CM * per_cm)
    for found in energies(dynamics, state, monkeypatch):
        assert found == pytest.approx(expected, rel=2e-3)


def test_many_beads_reach_quantum_theory():
    omega = PER_CM * 3700.0
    assert 2 * exact(256, omega) == pytest.approx(oscillator_energy(np.array([omega]), KELVIN)[0], rel=2e-3)
    assert 2 * exact(1, omega) == pytest.approx(KT)


def colder_springs(dynamics):
    """Wrong variant: springs of T where those of P T belong."""
    dynamics.omega = dynamics.omega / math.sqrt(dynamics.beads)


def noise_of_the_bath(dynamics):
    """Wrong variant: noise of T where that of P T belongs."""
    dynamics._width = dynamics._width / math.sqrt(dynamics.beads)


@pytest.mark.parametrize("wrong", [colder_springs, noise_of_the_bath])
def test_wrong_variants_are_seen(monkeypatch, wrong):
    dynamics, state = oscillator(5, 3700.0)
    wrong(dynamics)
    expected = exact(5, PER_CM * 3700.0)
    assert abs(energies(dynamics, state, monkeypatch)[0] / expected - 1) > 0.05


def test_modes_are_orthogonal_and_diagonal():
    for beads in (1, 2, 3, 8):
        c = normal_modes(beads, torch.zeros(1)).numpy()
        assert np.abs(c @ c.T - np.eye(beads)).max() < 1e-14
        ring = 2 * np.eye(beads) - np.roll(np.eye(beads), 1, 0) - np.roll(np.eye(beads), -1, 0)
        k = np.arange(beads)
        assert np.abs(c @ ring @ c.T - np.diag(4 * np.sin(k * np.pi / beads) ** 2)).max() < 1e-13


def test_one_bead_is_classical_langevin():
    """The same steps as BAOAB's, with the same random numbers."""
    settings = Settings(beads=1, temperature_K=90.0, timestep_fs=4.0, friction_per_fs=0.01, seed=3)
    toy = pairs_job()
    dynamics, state = started(settings, toy)
    bound = Pairs(toy.bound.systems)
    other = state_of(state.positions, state.velocities, state.masses, bound)
    other = replace(other, generator=state.generator.clone_state())
    for _ in range(5):
        state = dynamics.step(state)
        other = baoab(other, forces_fn(bound), Integration.from_fs(4.0, 90.0, 0.01))
        assert (state.positions - other.positions).abs().max() < 1e-12
    assert dynamics.virial_kinetic(state) == pytest.approx(1.5 * 32 * units.kB * 90.0)


def test_energy_is_conserved_but_for_the_step():
    drift = []
    for timestep_fs in (4.0, 2.0):
        settings = Settings(beads=4, temperature_K=90.0, timestep_fs=timestep_fs, friction_per_fs=0.01, seed=3)
        dynamics, state = started(settings)
        first, found = dynamics.conserved(state, 0.0), []
        for _ in range(round(200 / timestep_fs)):
            state = dynamics.step(state)
            found.append(dynamics.conserved(state, 0.0) - first)
        drift.append(np.ptp(found))
        assert abs(float(state.heat)) / 4 > 20 * drift[-1]
    assert 2.5 < drift[0] / drift[1] < 6


def test_a_sampled_run_has_the_energy():
    """All estimators agree with theory within their noise; forty oscillators in three directions."""
    atoms = Atoms("H40", np.arange(40)[:, None] * [5.0, 0, 0])
    well = Harmonic(torch.tensor(atoms.positions), MASS * (PER_CM * 2000.0) ** 2)
    settings = Settings(beads=6, temperature_K=KELVIN, timestep_fs=0.4, friction_per_fs=0.05, seed=1)
    dynamics, state = started(settings, job(atoms, well))
    found = []
    for k in range(1500):
        state = dynamics.step(state)
        if k > 300 and k % 5 == 0:
            found.append([*dynamics.measured(state)[:2], *dynamics.extra(state)])
    expected = 120 * exact(6, PER_CM * 2000.0)
    mean = np.mean(found, axis=0)
    assert mean[[0, 1, 3]] == pytest.approx(expected, rel=0.04) and mean[2] == pytest.approx(expected, rel=0.08)
    assert abs(120 * 0.5 * KT / mean[0] - 1) > 0.3  # classical would be far off
    kelvin = 2 * kinetic_energy(state) / (3 * 240 * units.kB * 6)
    assert kelvin == pytest.approx(KELVIN, rel=0.25)


# in a run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:MDAnalysis")
SETTINGS = Settings(beads=4, steps=20, timestep_fs=2.0, temperature_K=90.0, interval=4, restart_interval=6, seed=11)


def lj_job():
    return build_job(argon(), lennard_jones(), file="argon.xyz", read_options={})


def test_a_run_writes_a_bead_and_the_centroid(tmp_path, monkeypatch):
    sizes, call = [], BoundPotential.__call__
    monkeypatch.setattr(
        BoundPotential, "__call__", lambda self, x, **more: sizes.append(len(x)) or call(self, x, **more)
    )
    folder = RunFolder(tmp_path / "run")
    run(lj_job(), replace(SETTINGS, save="forces"), folder)
    assert sizes == [128] * 21
    state = Restart.read(folder.restart).state
    bead, centroid = (
        MDAnalysis.Universe(str(folder.topology), str(path)) for path in (folder.trajectory, folder.centroids)
    )
    assert len(bead.trajectory) == len(centroid.trajectory) == 6
    beads = state.positions.view(4, 32, 3).numpy()
    assert bead.trajectory[-1].positions == pytest.approx(beads[0], abs=1e-4)
    assert centroid.trajectory[-1].positions == pytest.approx(beads.mean(0), abs=1e-4)
    with folder.log.open() as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["kinetic_eV"]) == float(row["kinetic_virial_eV"]) != float(row["kinetic_primitive_eV"])
    assert float(row["potential_eV"]) == pytest.approx(float(state.energy.mean()), abs=1e-7)
    assert "conserved_eV" in row and 40 < float(row["temperature_K"]) < 140


@pytest.mark.parametrize("make", [lj_job, pairs_job])
def test_resumed_it_goes_on_as_if_never_stopped(tmp_path, make):
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(make(), SETTINGS, long)
    run(make(), replace(SETTINGS, steps=15), short)
    short.restart.unlink()
    run(make(), SETTINGS, short, resume=True)
    assert bytes_of(short, "centroid.dcd") == bytes_of(long, "centroid.dcd")


def test_guards_look_at_every_bead(tmp_path):
    atoms = argon()

    class ThirdFails(Failing):
        copies = 0

        def __deepcopy__(self, memo):
            ThirdFails.copies += 1
            return ThirdFails(Pairs(Systems.from_atoms(atoms)), 5 if ThirdFails.copies == 3 else 10**9)

    with pytest.raises(RunError, match=r"at step 5 the force on atom 3 \(Ar\) is not finite"):
        run(job(atoms, ThirdFails(Pairs(Systems.from_atoms(atoms)), 0)), SETTINGS, RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    "given",
    [
        {"ensemble": "nve"},
        {"ensemble": "npt"},
        {"thermostat": "bussi"},
        {"thermostat": "qtb", "timestep_fs": 1.0, "temperature_K": 300.0},
        {"fix": "0"},
        {"restraints": "0:1"},
        {"constraints": "0-1"},
        {"hydrogen_mass": 3.0},
        {"engine": "openmm"},
        {"temperature_end_K": 100.0},
        {"temperature_K": 1.0},
        {"beads": -1},
        {"beads": 5000},
    ],
)
def test_what_does_not_go_with_beads(given):
    with pytest.raises(InputError, match="--"):
        replace(SETTINGS, **given)


def test_fixed_atoms_and_replicas_are_refused(tmp_path):
    atoms = argon()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="--beads"):
        RingPolymer(pairs_job(atoms), SETTINGS)
    with pytest.raises(InputError, match="--beads"):
        run_replicas(pairs_job(), SETTINGS, RunFolder(tmp_path / "run"), 2)
