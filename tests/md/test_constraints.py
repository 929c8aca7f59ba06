"""Bonds of fixed length: kept, with the right energy, the right degrees of freedom and the right pressure."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixBondLengths
from ase.md.verlet import VelocityVerlet
from scipy.stats import chi2, gamma

from omnicalc.errors import InputError, RunError
from omnicalc.md import integrators
from omnicalc.md.constraint_list import as_setting, constrained
from omnicalc.md.constraints import Constraints
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.folder import RunFolder
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.monte_carlo import stretched
from omnicalc.md.observables import kinetic_energy
from omnicalc.md.run import run
from omnicalc.md.settings import Settings

from .statistics import ks_probability
from .toy import ToyCalculator, argon, job, pairs_job

CHAINS = "0-1:3.75,1-2:3.75,4-5,8-9,9-10,8-10,16-17:3.8"  # a chain, a triangle, pairs; of 32 argon atoms
SETTINGS = Settings(timestep_fs=4.0, temperature_K=90.0, seed=11, constraints=CHAINS, thermostat_time_fs=40.0)
N_BONDS = 7


def started(settings: Settings, bound_job=None):
    bound_job = pairs_job() if bound_job is None else bound_job
    dynamics, guards = Dynamics(bound_job, settings), Guards(settings, bound_job.atoms, Path(), print)
    return dynamics, initial_state(bound_job.atoms, dynamics, settings, guards)


def errors(dynamics, state) -> tuple[float, float]:
    """Largest error of a length, Å, and of the speed along a bond, relative to the velocities."""
    held = dynamics.constraints
    bond = held.directions(state.positions, state.cell)
    speed = (bond * (state.velocities[held.i] - state.velocities[held.j])).sum(1) / bond.norm(dim=1)
    return float((bond.norm(dim=1) - held.length).abs().max()), float(speed.abs().max() / state.velocities.abs().max())


WAYS = [{"ensemble": "nve"}, {"thermostat": "langevin"}, {"thermostat": "bussi"}, {"thermostat": "nhc"}]


@pytest.mark.parametrize("way", WAYS)
def test_lengths_are_kept(way):
    dynamics, state = started(replace(SETTINGS, **way))
    com_removed = way != {"thermostat": "langevin"}
    assert dynamics.degrees_of_freedom == 96 - 3 * com_removed - N_BONDS == state.degrees_of_freedom
    for _ in range(50):
        length, speed = errors(dynamics, state)
        assert length < 1e-8 and speed < 1e-10
        state = dynamics.step(state)


def test_a_looser_tolerance_is_looser():
    dynamics, state = started(replace(SETTINGS, constraint_tolerance=1e-6))
    for _ in range(5):
        state = dynamics.step(state)
    assert 1e-12 < errors(dynamics, state)[0] < 1e-5


def test_unconstrained_lengths_change():
    """The wrong variant: the same run without constraints."""
    dynamics, state = started(SETTINGS)
    free, _ = started(replace(SETTINGS, constraints=""))
    for _ in range(20):
        state = free.step(state)
    assert errors(dynamics, state)[0] > 1e-2


def test_steps_equal_those_of_ase():
    dynamics, state = started(replace(SETTINGS, ensemble="nve"))
    atoms, held = dynamics.job.atoms.copy(), dynamics.constraints
    atoms.positions = state.positions.numpy()
    atoms.set_velocities(state.velocities.numpy())
    pairs = list(zip(held.i.tolist(), held.j.tolist(), strict=True))
    atoms.set_constraint(FixBondLengths(pairs, tolerance=1e-14))
    atoms.calc = ToyCalculator(dynamics.job.bound)
    theirs = VelocityVerlet(atoms, timestep=4 * units.fs)
    for _ in range(10):
        state = dynamics.step(state)
        theirs.run(1)
        assert np.abs(state.positions.numpy() - atoms.positions).max() < 1e-9
        assert np.abs(state.velocities.numpy() - atoms.get_velocities()).max() < 1e-10


# energy


def energy_error(timestep_fs: float) -> float:
    dynamics, state = started(replace(SETTINGS, ensemble="nve", timestep_fs=timestep_fs, temperature_K=400.0))
    found = []
    for _ in range(round(400 / timestep_fs)):
        state = dynamics.step(state)
        found.append(float(state.energy.sum()) + kinetic_energy(state))
    return np.ptp(found)


def without_tangent(monkeypatch):
    """Wrong variant: velocities keep what would stretch the bonds."""
    monkeypatch.setattr(integrators, "tangent", lambda velocities, positions, state, settings: velocities)


def without_pull(monkeypatch):
    """Wrong variant: positions are corrected, the velocities that lead there are not."""

    def drift(positions, velocities, time, state, settings):
        free = positions + time * velocities
        return settings.constraints.onto(free, positions, state.cell), velocities

    monkeypatch.setattr(integrators, "drift", drift)


def test_nve_energy_error_is_of_second_order():
    assert 3.5 < energy_error(8.0) / energy_error(4.0) < 4.5


def test_velocities_that_are_not_projected_are_seen(monkeypatch):
    without_tangent(monkeypatch)
    dynamics, state = started(replace(SETTINGS, ensemble="nve"))
    assert errors(dynamics, dynamics.step(state))[1] > 1e-4


def test_a_pull_that_velocities_miss_is_seen(monkeypatch):
    without_pull(monkeypatch)
    assert energy_error(8.0) / energy_error(4.0) < 3


def test_heat_is_counted():
    dynamics, state = started(replace(SETTINGS, friction_per_fs=0.02, timestep_fs=1.0))
    first = dynamics.conserved(state, float(state.energy.sum()) + kinetic_energy(state))
    total = first
    for _ in range(150):
        state = dynamics.step(state)
        total = float(state.energy.sum()) + kinetic_energy(state)
    assert abs(dynamics.conserved(state, total) - first) < 1e-3 < abs(total - first)


# degrees of freedom: 2K/kT is chi-squared of 3N - C


class Bowl:
    """Every atom in a quartic well of its own: chaotic with bonds between, cheap."""

    def __init__(self, centre: torch.Tensor):
        self.centre = centre

    def __call__(self, positions: torch.Tensor) -> SimpleNamespace:
        d = positions - self.centre
        energy = (1.0 * d.square() + 20.0 * d**4).sum().reshape(1)
        return SimpleNamespace(energy=energy, forces=-(2.0 * d + 80.0 * d**3))


def kinetic_energies(seeds: int = 0) -> list[float]:
    """2K/kT along a run of six atoms in two bent chains, or at the start of ``seeds`` runs."""
    chain = np.array([[0.0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0]])
    atoms = Atoms("C6", np.concatenate([chain, chain + [0, 0, 3.0]]))
    settings = Settings(
        timestep_fs=1.0, temperature_K=300.0, constraints="0-1,1-2,3-4,4-5", seed=5, friction_per_fs=0.1
    )
    kT, found = units.kB * 300.0, []
    toy = job(atoms, Bowl(torch.tensor(atoms.positions)))
    for seed in range(seeds):
        _, state = started(replace(settings, seed=seed), toy)
        found.append(2 * kinetic_energy(state) / kT)
    if seeds:
        return found
    dynamics, state = started(settings, toy)
    for k in range(2500):
        state = dynamics.step(state)
        if k > 100 and k % 8 == 0:
            found.append(2 * kinetic_energy(state) / kT)
    return found


def test_kinetic_energy_has_the_degrees_of_freedom_that_are_left():
    """18 less 4 bonds."""
    found = kinetic_energies()
    assert ks_probability(found, chi2(14).cdf) > 0.01
    assert ks_probability(found, chi2(18).cdf) < 1e-3  # the wrong variant: bonds count


def test_first_velocities_have_them_too():
    found = kinetic_energies(seeds=300)
    assert ks_probability(found, chi2(14).cdf) > 0.01
    assert ks_probability(found, chi2(18).cdf) < 1e-6


def test_bussi_and_chains_reach_the_temperature_with_bonds():
    """Mean of 2K/kT over what is left of 3N; counting the bonds would be off by N_BONDS / 86."""
    for thermostat in ("bussi", "nhc"):
        dynamics, state = started(replace(SETTINGS, thermostat=thermostat, temperature_K=40.0))
        found = []
        for k in range(600):
            state = dynamics.step(state)
            if k > 100:
                found.append(2 * kinetic_energy(state) / (units.kB * 40.0))
        freedom = 96 - 3 - N_BONDS
        assert np.mean(found) == pytest.approx(freedom, abs=0.35 * N_BONDS)


# with the Monte-Carlo barostat


def waters(count: int = 2) -> Atoms:
    box = molecule("H2O", cell=[6.2] * 3, pbc=True).repeat((count, 2, 1))
    box.rattle(0.02, seed=2)
    box.wrap()
    return box


def no_forces(atoms: Atoms):
    """A potential that is nothing, in a cell that may move."""

    class Free:
        systems = SimpleNamespace(cell=torch.tensor(atoms.cell.array)[None])

        def __call__(self, positions, stress=False):
            zero = torch.zeros(3, 3, dtype=torch.float64)
            return SimpleNamespace(
                energy=torch.zeros(1, dtype=torch.float64), forces=torch.zeros_like(positions), stress=zero[None]
            )

    return Free()


def test_rigid_waters_sample_the_volume_of_an_ideal_gas(monkeypatch):
    """P(V) is that of as many points as there are molecules, and the mean pressure that of the barostat."""
    monkeypatch.setattr("omnicalc.md.dynamics.follow", lambda *x: None, raising=False)
    monkeypatch.setattr("omnicalc.md.forces.follow", lambda bound, cell: None)
    atoms = waters()
    pressure = 4 * units.kB * 300.0 / atoms.get_volume()
    settings = Settings(
        ensemble="npt", barostat="mc", constraints="h-bonds", timestep_fs=1.0, barostat_interval=1, seed=3,
        pressure_bar=pressure / units.bar, guards="box=off",
    )  # fmt: skip
    dynamics, state = started(settings, job(atoms, no_forces(atoms)))
    found, inner = [], []
    for k in range(1800):
        state = dynamics.step(state)
        if k > 180:
            found.append(state.volume)
            inner.append(dynamics.pressure_bar(replace(state, stress=torch.zeros(3, 3, dtype=torch.float64))))
    assert errors(dynamics, state)[0] < 1e-8 and dynamics.degrees_of_freedom == 36 - 8
    assert ks_probability(found, gamma(5, scale=units.kB * 300.0 / pressure).cdf) > 0.01
    assert ks_probability(found, gamma(13, scale=units.kB * 300.0 / pressure).cdf) < 1e-3  # atoms, not molecules
    assert np.mean(inner) == pytest.approx(settings.pressure_bar, rel=0.15)


def test_molecular_pressure_is_the_derivative_by_the_volume():
    atoms = waters(1)
    toy = pairs_job(atoms)
    toy.bound.sigma = 1.2
    settings = Settings(ensemble="npt", barostat="mc", constraints="h-bonds", seed=3)
    dynamics, state = started(settings, toy)
    energy, forces, stress = dynamics.forces(state.positions, state.cell, True)
    state, slopes = replace(state, energy=energy, forces=forces, stress=stress), []
    for ratio in (1 + 1e-6, 1 - 1e-6):
        positions, cell = stretched(state, dynamics._monte_carlo, (0, 1, 2), ratio)
        slopes.append(float(dynamics.forces(positions, cell)[0].sum()))
    virial = -(slopes[0] - slopes[1]) / (2e-6 * state.volume)
    ideal = 2 * units.kB * 300.0 / state.volume
    assert dynamics.pressure_bar(state) == pytest.approx((ideal + virial) / units.bar, rel=1e-5)
    atomic, _ = started(replace(settings, constraints=""), toy)
    assert abs(atomic.pressure_bar(state) / dynamics.pressure_bar(state) - 1) > 0.01  # the wrong variant


# which bonds, and what cannot be


def test_bonds_of_hydrogens_have_one_length_per_element():
    atoms = waters()
    found = constrained(atoms, "h-bonds")
    assert len(found.i) == 8 and (atoms.numbers[found.i] == 1).all() and np.ptp(found.length) == 0
    dynamics, state = started(Settings(constraints="h-bonds", ensemble="nvt"), job(atoms, no_forces(atoms)))
    distance = [Atoms(atoms.numbers, state.positions.numpy(), cell=atoms.cell, pbc=True).get_distance(i, j, mic=True)
                for i, j in zip(found.i, found.j, strict=True)]  # fmt: skip
    assert np.abs(np.array(distance) - found.length[0]).max() < 1e-9


def test_pairs_from_a_file(tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("# water\n0 1 0.97\n\n 2 0   # as it is\n")
    assert as_setting(str(file)) == "0-1:0.97,2-0"
    atoms = molecule("H2O")
    found = constrained(atoms, as_setting(str(file)))
    assert found.i.tolist() == [0, 0] and found.j.tolist() == [1, 2] and found.length[0] == 0.97
    assert found.length[1] == pytest.approx(atoms.get_distance(0, 2))


def test_a_pair_across_the_cell_is_that_of_the_nearest_images():
    atoms = Atoms("Ar2", [[0.2, 0, 0], [9.8, 0.3, 0]], cell=[[10, 0, 0], [2, 9, 0], [0, 1, 11]], pbc=True)
    found = constrained(atoms, "0-1")
    assert found.length[0] == pytest.approx(0.5) and found.images.tolist() == [[-1, 0, 0]]
    held = Constraints(found, torch.tensor([39.95, 39.95], dtype=torch.float64))
    x, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    assert held.directions(x, cell).norm() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("text", ["0 1 0.97 3\n", "0 x\n", "0\n", "\n# nothing\n"])
def test_files_that_cannot_be_read(tmp_path, text):
    file = tmp_path / "pairs.txt"
    file.write_text(text)
    with pytest.raises(InputError, match="'I J'"):
        as_setting(str(file))
    with pytest.raises(InputError, match="no such file; 'h-bonds'"):
        as_setting("h_bonds")


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        ("0-1:9.0", "would have to move"),
        ("0-1:3.7,1-2:3.7,0-2:9.0", "atoms 0 and 2 are .* and are to be at 9 Å"),
        ("0-99", "among 0 to 31"),
        ("3-3", "among 0 to 31"),
        ("0-1,1-0", "constrained twice"),
        ("0-1:-2", "positive number"),
        ("0:1", "I-J"),
        ("h-bonds", "no bond of a hydrogen"),
    ],
)
def test_constraints_that_cannot_be(constraints, words):
    with pytest.raises(InputError, match=words):
        Dynamics(pairs_job(), replace(SETTINGS, constraints=constraints))


def test_a_triangle_that_cannot_close():
    atoms = argon(1)
    with pytest.raises(InputError, match="atoms 1 and 2 are .* to be at 6.8 Å"):
        Dynamics(pairs_job(atoms), replace(SETTINGS, constraints="0-1:3.2,0-2:3.2,1-2:6.8"))


def test_a_linear_molecule_has_one_constraint_too_many():
    atoms = molecule("CO2")
    with pytest.raises(InputError, match="follows from the others"):
        Dynamics(job(atoms, Bowl(torch.tensor(atoms.positions))), replace(SETTINGS, constraints="0-1,0-2,1-2"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"thermostat": "qtb", "timestep_fs": 1.0}, "zero-point"),
        ({"ensemble": "npt"}, "--barostat mc"),
        ({"constraint_tolerance": 0.0}, "--constraint-tolerance"),
    ],
)
def test_what_does_not_go_with_constraints(given, words):
    with pytest.raises(InputError, match=words):
        replace(SETTINGS, **given)


def test_the_barostat_refuses_bonds_between_its_molecules():
    with pytest.raises(InputError, match="different ones"):
        Dynamics(pairs_job(), replace(SETTINGS, ensemble="npt", barostat="mc"))


def test_fixed_atoms_hold_their_partners():
    dynamics, state = started(replace(SETTINGS, fix="1,4-5"))
    assert len(dynamics.constraints) == N_BONDS - 1 and dynamics.degrees_of_freedom == 96 - 9 - (N_BONDS - 1)
    start = state.positions[1].clone()
    for _ in range(20):
        state = dynamics.step(state)
    assert torch.equal(state.positions[1], start) and errors(dynamics, state)[0] < 1e-8
    with pytest.raises(InputError, match="of fixed atoms"):
        Dynamics(pairs_job(), replace(SETTINGS, constraints="4-5", fix="4-5"))


def test_a_bond_torn_in_a_run_stops_it(tmp_path):
    dynamics, state = started(SETTINGS)
    torn = replace(state, velocities=1e4 * torch.ones_like(state.velocities) * torch.arange(32)[:, None] ** 2)
    with pytest.raises(RunError, match="cannot be held"):
        dynamics.step(torn)


def test_a_run_with_constraints(tmp_path, monkeypatch):
    monkeypatch.setattr("omnicalc.md.loop.plots.draw", lambda *arguments, **keywords: None)
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, steps=20, interval=5), folder)
    with folder.log.open() as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["temperature_K"]) == pytest.approx(
        2 * float(row["kinetic_eV"]) / ((96 - N_BONDS) * units.kB), rel=1e-5
    )
