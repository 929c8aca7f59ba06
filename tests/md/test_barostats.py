"""Barostats against theory: volumes of an ideal gas, an elastic cell, whole molecules; wrong variants beside them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from scipy.integrate import cumulative_trapezoid
from scipy.stats import gamma

from omnicalc.errors import InputError, RunError
from omnicalc.md import cell_rescaling
from omnicalc.md.cell_rescaling import CellRescaling, strained
from omnicalc.md.dynamics import Dynamics
from omnicalc.md.forces import Forces
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.molecules import molecules_of
from omnicalc.md.monte_carlo import MonteCarlo, start_widths, stretched, trial_volume
from omnicalc.md.settings import Settings
from omnicalc.md.state import State, remove_com_velocity
from omnicalc.systems import Systems

from .statistics import ks_probability, mean_and_error
from .toy import argon, job, pairs_job, thermal

KELVIN, MASS, N, EDGE = 300.0, 12.0, 8, 10.0
KT, VOLUME = units.kB * KELVIN, EDGE**3
PRESSURE = N * KT / VOLUME  # of an ideal gas at about this volume
ONE = torch.eye(3, dtype=torch.float64)


class Gas:
    """No forces; the energy is that of the cell alone and does not change when it is turned:

    U = k V₀/2 tr E² + s V₀/2 (tr M/det(M)^⅓ - 3),    M = F Fᵀ, E = (M - 1)/2, F = h/L

    ``stiffness`` k and ``shape`` s in eV/Å^3. The second term holds the shape and has no say in the volume.
    """

    def __init__(self, atoms: Atoms, stiffness: float = 0.0, shape: float = 0.0):
        self.systems, self.edge = Systems.from_atoms(atoms), atoms.cell[0, 0]
        self.k, self.s = stiffness * self.edge**3, shape * self.edge**3

    def at(self, cell: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy and stress (3, 3) in a cell (3, 3)."""
        F, volume = cell / self.edge, np.linalg.det(cell)
        E, root = 0.5 * (F @ F.T - np.eye(3)), (volume / self.edge**3) ** (2 / 3)
        trace = (F**2).sum() / root
        tension = self.k * F.T @ E @ F + self.s * (F.T @ F / root - trace / 3 * np.eye(3))
        return 0.5 * self.k * (E**2).sum() + 0.5 * self.s * (trace - 3), tension / volume

    def __call__(self, positions: torch.Tensor, stress: bool = False) -> SimpleNamespace:
        energy, tension = self.at(self.systems.cell[0].numpy())
        forces = torch.zeros_like(positions)
        return SimpleNamespace(energy=torch.tensor([energy]), forces=forces, stress=torch.from_numpy(tension)[None])


def gas_atoms(n: int = N) -> Atoms:
    corners = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[:n]
    atoms = Atoms(f"C{n}", 3.3 * corners, cell=[EDGE] * 3, pbc=True)
    atoms.set_masses([MASS] * n)
    return atoms


def gas_state(stiffness: float = 0.0, shape: float = 0.0) -> tuple[Forces, State]:
    atoms = gas_atoms()
    forces = Forces(Gas(atoms, stiffness, shape))
    cell, positions = torch.tensor(atoms.cell.array), torch.tensor(atoms.positions)
    energy, zero, stress = forces(positions, cell, True)
    masses = torch.full((N,), MASS, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    return forces, State.start(positions, zero, zero, energy, masses, generator, cell=cell, stress=stress)


def test_the_stress_of_the_elastic_cell_is_its_derivative():
    gas, positions = Gas(gas_atoms(), 0.02, 0.03), torch.zeros(N, 3, dtype=torch.float64)
    start = torch.tensor([[10.0, 0.3, 0.0], [0.1, 9.0, 0.5], [0.0, 1.0, 11.0]], dtype=torch.float64)
    for a, b in ((0, 0), (1, 1), (0, 1), (1, 2)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] = strain[b, a] = 1e-5
        energies = []
        for sign in (1, -1):
            gas.systems = replace(gas.systems, cell=(start @ torch.linalg.matrix_exp(sign * strain))[None])
            energies.append(float(gas(positions).energy))
        gas.systems = replace(gas.systems, cell=start[None])
        expected = float((gas(positions).stress[0] * strain).sum() * torch.linalg.det(start))
        assert (energies[0] - energies[1]) / 2 == pytest.approx(expected, rel=1e-6)


# stochastic cell rescaling, on its own: velocities are drawn anew before each move


def plan(coupling: str, stiffness: float = 0.0, pace: float = 0.06, pressure: float = PRESSURE) -> CellRescaling:
    """A barostat that relaxes by ``pace`` of the deviation in each move of one time unit."""
    return CellRescaling(pressure, 1.0, pace / (PRESSURE + stiffness), 1, coupling)


def rescaled(
    coupling: str, steps: int, *, stiffness=0.0, shape=0.0, com_removed=False, flag=None, heat=1.0, tension=1.0,
    pace=0.06, pressure=PRESSURE,
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Cell (3, 3) and inner pressure times volume (3, 3) along a run of the barostat.

    For wrong variants: ``flag``, what the barostat is told of the centre of mass; ``heat``, the temperature it is told
    over the real one; ``tension``, the stress it is told over the real one.
    """
    gas, (_, state) = Gas(gas_atoms(), stiffness, shape), gas_state(stiffness, shape)
    state = replace(state, com_removed=com_removed if flag is None else flag)
    generator, barostat = torch.Generator().manual_seed(2), plan(coupling, stiffness, pace, pressure)
    found = []
    for k in range(steps):
        v = (KT / MASS) ** 0.5 * torch.randn(N, 3, dtype=torch.float64, generator=generator)
        v = remove_com_velocity(v, state.masses) if com_removed else v
        cell = state.cell.numpy()
        stress = gas.at(cell)[1]
        if k > steps // 20:
            found.append((cell, MASS * (v.T @ v).numpy() - np.linalg.det(cell) * stress))
        state = replace(state, stress=torch.from_numpy(tension * stress))
        _, _, moved = strained(state, state.positions, v, barostat, heat * KELVIN, 1.0, generator)
        state = replace(state, cell=moved)
    return found


def volumes(found) -> np.ndarray:
    return np.linalg.det(np.array([cell for cell, _ in found]))


def ideal(values: np.ndarray, molecules: int = N) -> float:
    """Probability under P(V) ∝ V^M exp(-PV/kT)."""
    return ks_probability(values, gamma(molecules + 1, scale=KT / PRESSURE).cdf)


def elastic(values: np.ndarray, stiffness: float, pressure: float = PRESSURE) -> float:
    """Probability under P(V) ∝ V^N exp(-(U(V) + PV)/kT), for a cell that stays a cube."""
    grid = np.linspace(0.2, 3.0, 4000) * VOLUME
    energy = 0.5 * stiffness * VOLUME * 3 * (0.5 * ((grid / VOLUME) ** (2 / 3) - 1)) ** 2
    log = N * np.log(grid) - (energy + pressure * grid) / KT
    area = cumulative_trapezoid(np.exp(log - log.max()), grid, initial=0.0)
    return ks_probability(values, lambda v: np.interp(v, grid, area / area[-1]))


@pytest.fixture
def large_moves(monkeypatch):
    """Ten atoms shake their cell more than a liquid does."""
    monkeypatch.setattr(cell_rescaling, "_LARGEST", 10.0)


@pytest.mark.parametrize(("coupling", "com_removed"), [("semi-isotropic", False), ("anisotropic", True)])
def test_rescaling_samples_the_volume_of_an_ideal_gas(large_moves, coupling, com_removed):
    found = rescaled(coupling, 8000, com_removed=com_removed, shape=1e-4)  # else the shape wanders off
    assert ideal(volumes(found)) > 0.01


PRESSED = {"stiffness": 0.02, "pressure": 5 * PRESSURE, "pace": 0.15}


def test_rescaling_samples_the_volume_of_an_elastic_cell(large_moves):
    assert elastic(volumes(rescaled("isotropic", 8000, **PRESSED)), 0.02, 5 * PRESSURE) > 0.01


WRONG = {
    "a resting centre of mass forgotten": {"com_removed": True, "flag": False},
    "noise of another temperature": {"heat": 3.0},
    "half of the stress": PRESSED | {"tension": 0.5},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_variants_of_rescaling_are_seen(large_moves, name):
    more = WRONG[name]
    values = volumes(rescaled("isotropic", 6000, **more))
    assert (elastic(values, 0.02, 5 * PRESSURE) if "stiffness" in more else ideal(values)) < 1e-3


def test_the_inner_pressure_tensor_balances_the_outer_one(large_moves):
    """⟨V (P_ij - P₀ δ_ij)⟩ = -kT δ_ij, by parts, for any cell in the ensemble."""
    found = rescaled("anisotropic", 8000, shape=1e-4)
    volume, inner = volumes(found), np.array([p for _, p in found])
    balance = (inner - PRESSURE * volume[:, None, None] * np.eye(3)) / KT
    for a in range(3):
        for b in range(a, 3):
            mean, error = mean_and_error(balance[:, a, b])
            assert abs(mean + (a == b)) < 4 * error
    mean, error = mean_and_error(balance.trace(axis1=1, axis2=2) / 3)
    assert abs(mean + 1) < 3 * error and abs(mean) > 4 * error  # 0 would be an equation without its drift


def shear_too_strong(strain: np.ndarray, coupling: str) -> np.ndarray:
    """Wrong variant: off-diagonal noise of variance 1."""
    return np.triu(strain) + np.triu(strain, 1).T


@pytest.mark.parametrize("wrong", [False, True])
def test_the_shape_of_an_elastic_cell(monkeypatch, wrong):
    """A stiff cell has Gaussian strains: variance of E_11 - E_22 is 2 kT / k V₀, that of E_12 kT / 2 k V₀."""
    if wrong:
        monkeypatch.setattr(cell_rescaling, "projected", shear_too_strong)
    stiffness = 0.1
    found = rescaled("anisotropic", 5000, stiffness=stiffness, pace=0.3)
    F = np.array([cell for cell, _ in found]) / EDGE
    E = 0.5 * (F @ F.transpose(0, 2, 1) - np.eye(3))
    unit = KT / (stiffness * VOLUME)
    mean, error = mean_and_error((E[:, 0, 0] - E[:, 1, 1]) ** 2 / (2 * unit))
    assert wrong or abs(mean - 1) < 4 * error + 0.05
    mean, error = mean_and_error(E[:, 0, 1] ** 2 / (0.5 * unit))
    assert (abs(mean - 1) > 4 * error + 0.2) if wrong else (abs(mean - 1) < 4 * error + 0.05)


def test_couplings_move_what_they_say():
    strain = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 12.0]])
    assert np.array_equal(cell_rescaling.projected(strain, "isotropic"), 6.0 * np.eye(3))
    assert np.array_equal(cell_rescaling.projected(strain, "semi-isotropic"), np.diag([3.0, 3.0, 12.0]))
    assert np.array_equal(cell_rescaling.projected(strain, "anisotropic"), 0.5 * (strain + strain.T))


def test_a_move_scales_positions_with_the_cell_and_velocities_against_it(large_moves):
    _, state = gas_state()
    v = thermal(N, MASS, KELVIN)
    barostat = plan("anisotropic")
    x, w, cell = strained(state, state.positions, v, barostat, KELVIN, 1.0, torch.Generator().manual_seed(3))
    assert torch.allclose(torch.linalg.solve(cell.T, x.T).T, state.positions / EDGE, atol=1e-12)
    assert (cell - EDGE * ONE).abs().max() > 1e-3
    assert float((w * x).sum()) == pytest.approx(float((v * state.positions).sum()), rel=1e-9)  # v·x is kept


def test_a_violent_move_is_refused():
    _, state = gas_state()
    state = replace(state, stress=-10.0 * ONE)
    with pytest.raises(RunError, match=r"at step 1 the barostat would strain the cell by .* --barostat-time"):
        strained(state, state.positions, state.velocities, plan("isotropic"), KELVIN, 1.0, state.generator)


# Monte Carlo


def monte_carlo(coupling: str, atoms: Atoms, count: int | None = None) -> MonteCarlo:
    found = molecules_of(atoms)
    molecule_of, images = torch.tensor(found.molecule), torch.tensor(found.images)
    return MonteCarlo(PRESSURE, 1, coupling, molecule_of, images, found.count if count is None else count)


def trials(coupling: str, steps: int, *, stiffness=0.0, count=None) -> np.ndarray:
    forces, state = gas_state(stiffness)
    state = replace(state, barostat=start_widths(VOLUME, coupling, state.positions))
    barostat, found = monte_carlo(coupling, gas_atoms(), count), []
    for k in range(steps):
        state = trial_volume(state, forces, barostat, KELVIN)
        if k > steps // 10:
            found.append(state.volume)
    rate = state.barostat[:, 2] / state.barostat[:, 1]
    assert ((rate > 0.3) & (rate < 0.9)).all()
    return np.array(found)


@pytest.mark.parametrize("coupling", ["semi-isotropic", "anisotropic"])
def test_monte_carlo_samples_the_volume_of_an_ideal_gas(coupling):
    assert ideal(trials(coupling, 2500)) > 0.01


def test_monte_carlo_samples_the_volume_of_an_elastic_cell():
    assert elastic(trials("isotropic", 2500, stiffness=0.02), 0.02) > 0.01


def test_a_wrong_number_of_molecules_is_seen():
    assert ideal(trials("isotropic", 2500, count=N + 3)) < 1e-3


def test_trial_moves_are_pure():
    forces, state = gas_state()
    state = replace(state, barostat=start_widths(VOLUME, "isotropic", state.positions))
    barostat = monte_carlo("isotropic", gas_atoms())
    a, b = (trial_volume(state, forces, barostat, KELVIN) for _ in range(2))
    assert torch.equal(a.cell, b.cell) and torch.equal(a.barostat, b.barostat)
    assert float(state.barostat[0, 1]) == 0 and float(a.barostat[0, 1]) == 1


def waters() -> Atoms:
    """Eight waters across the faces of a skewed cell, wrapped so that molecules are in pieces."""
    box = molecule("H2O", cell=[3.2] * 3, pbc=True).repeat(2)
    box.set_cell([[6.4, 0, 0], [1.5, 6.4, 0], [-0.7, 1.1, 6.4]])
    box.positions += [0.3, 0.1, 2.9]
    box.wrap()
    return box


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 1)])
def test_molecules_keep_their_shape_in_any_cell(axes):
    atoms = waters()
    found = molecules_of(atoms)
    assert found.count == 8 and found.networks == 0 and found.images.any()
    x, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    masses, zero = torch.tensor(atoms.get_masses()), torch.zeros(24, 3, dtype=torch.float64)
    state = State.start(x, zero, zero, torch.zeros(1), masses, torch.Generator(), cell=cell)
    right, larger = stretched(state, monte_carlo("isotropic", atoms), axes, 1.2)
    wrong, _ = stretched(
        state, replace(monte_carlo("isotropic", atoms), images=torch.zeros(24, 3, dtype=torch.float64)), axes, 1.2
    )
    assert float(torch.linalg.det(larger) / torch.linalg.det(cell)) == pytest.approx(1.2)

    def bonds(positions: torch.Tensor, cell: torch.Tensor) -> np.ndarray:
        moved = Atoms(atoms.numbers, positions.numpy(), cell=cell.numpy(), pbc=True)
        pairs = [(3 * (k // 2), 3 * (k // 2) + 1 + k % 2) for k in range(16)]
        return np.array([moved.get_distance(a, b, mic=True) for a, b in pairs])

    assert np.abs(bonds(right, larger) - bonds(x, cell)).max() < 1e-12
    assert np.abs(bonds(wrong, larger) - bonds(x, cell)).max() > 1e-3


def test_an_endless_network_moves_atom_by_atom():
    silica = Atoms("SiO2", [[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]], cell=[3.2, 3.2, 9.0], pbc=True)
    found = molecules_of(silica)
    assert (found.count, found.networks) == (3, 1) and not found.images.any()


# in a run


def run_volumes(steps: int, **given) -> np.ndarray:
    """Volumes of an ideal gas in a run with a thermostat, a cell move every step."""
    settings = Settings(
        ensemble="npt",
        timestep_fs=2.0,
        pressure_bar=PRESSURE / units.bar,
        compressibility_per_bar=units.bar / PRESSURE,
        barostat_time_fs=60.0,
        barostat_interval=1,
        friction_per_fs=0.05,
        thermostat_time_fs=20.0,
        guards="box=off",
        **given,
    )
    atoms = gas_atoms()
    dynamics = Dynamics(job(atoms, Gas(atoms)), settings)
    state = initial_state(atoms, dynamics, settings, Guards(settings, atoms, Path(), print))
    found = []
    for k in range(steps):
        state = dynamics.step(state)
        if k > steps // 20:
            found.append(state.volume)
    return np.array(found)


@pytest.mark.parametrize(
    ("barostat", "thermostat"), [("rescale", "langevin"), ("rescale", "bussi"), ("mc", "langevin")]
)
def test_a_run_samples_the_volume_of_an_ideal_gas(large_moves, barostat, thermostat):
    assert ideal(run_volumes(4000, barostat=barostat, thermostat=thermostat)) > 0.01


def density_run(barostat: str, thermostat: str, steps: int) -> tuple[float, float]:
    atoms = argon()
    settings = Settings(
        ensemble="npt", barostat=barostat, thermostat=thermostat, timestep_fs=8.0, temperature_K=40.0,
        pressure_bar=2000.0, compressibility_per_bar=5e-5, barostat_time_fs=400.0, barostat_interval=4,
        friction_per_fs=0.005, interval=8, thermostat_time_fs=200.0,
    )  # fmt: skip
    dynamics = Dynamics(pairs_job(atoms), settings)
    state = initial_state(atoms, dynamics, settings, Guards(settings, atoms, Path(), print))
    found, pressure = [], []
    for k in range(steps):
        state = dynamics.step(state)
        if k > steps // 10 and k % 8 == 7:
            found.append(state.volume)
            pressure.append(dynamics.pressure_bar(state))
    mean, error = mean_and_error(pressure)
    assert abs(mean - 2000.0) < 5 * error + 10.0
    return mean_and_error(found)


@pytest.mark.slow
def test_barostats_agree_on_the_density_of_argon():
    """A Lennard-Jones crystal: two barostats that share no line of code, three thermostats."""
    results = [density_run(*pair, 12_000) for pair in (("rescale", "langevin"), ("mc", "langevin"), ("mc", "bussi"))]
    results.append(density_run("rescale", "nhc", 12_000))
    for (a, da), (b, db) in zip(results, results[1:], strict=False):
        assert abs(a - b) < 4 * np.hypot(da, db) and max(da, db) < 0.01 * a


# what cannot be


def test_npt_refuses_what_it_cannot_do():
    def refused(settings: Settings, atoms: Atoms | None = None, **model) -> str:
        with pytest.raises(InputError) as caught:
            Dynamics(pairs_job(atoms, **model), settings)
        return str(caught.value)

    slab, turned = argon(), argon()
    slab.pbc = [True, True, False]
    turned.rotate(20, "x", rotate_cell=True)
    npt = Settings(ensemble="npt")
    assert "periodic along ab" in refused(npt, slab) and "--cell" in refused(npt, slab)
    for barostat in ("rescale", "mc"):
        assert "--ensemble nvt" in refused(replace(npt, barostat=barostat), conservative=False)
    assert "--fix" in refused(replace(npt, fix="0"))
    assert "--restrain" in refused(replace(npt, restraints="0:1"))
    assert "--coupling anisotropic" in refused(replace(npt, coupling="semi-isotropic"), turned)
