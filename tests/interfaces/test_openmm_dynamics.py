"""OpenMM's integrators, barostat, checkpoint and embedding run on our potential."""

import warnings

import numpy as np
import pytest

pytest.importorskip("openmmml")

import openmm  # noqa: E402
from openmm import app, unit  # noqa: E402

from omnicalc import OmniCalc  # noqa: E402
from omnicalc.interfaces.openmm_system import DEFAULTS  # noqa: E402
from tests.interfaces.waters import (  # noqa: E402
    FEMTOSECOND,
    KJ_PER_MOL,
    box,
    cell,
    cluster,
    context,
    energy_and_forces,
    positions,
    topology,
)

STEP = 0.5 * FEMTOSECOND


def total_energies(of: openmm.Context, steps: int, every: int) -> np.ndarray:
    """Potential plus kinetic energy, eV; OpenMM corrects the leapfrog velocities by half a step."""
    found = []
    for _ in range(steps // every):
        of.getIntegrator().step(every)
        state = of.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        found.append(total.value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL)
    return np.array(found)


def test_verlet_conserves_the_energy(MLPotential):
    """With the forces of the call before, it does not."""
    atoms = cluster(8)
    system = MLPotential("ubio-s3").createSystem(topology(atoms))
    spread = [np.ptp(total_energies(_started(each, atoms), 300, 5)) for each in (system, _stale(MLPotential, atoms))]
    kinetic = 1.5 * len(atoms) * 300 / 11604.5  # eV
    assert spread[0] < 0.02 * kinetic
    assert spread[1] > 10 * spread[0]


def _started(system, atoms) -> openmm.Context:
    of = context(system, atoms, openmm.VerletIntegrator(STEP))
    openmm.LocalEnergyMinimizer.minimize(of, 50.0, 20)
    of.setVelocitiesToTemperature(300, 1)
    return of


def _stale(MLPotential, atoms) -> openmm.System:  # noqa: N803
    """A System whose forces are always one call late."""
    system = openmm.System()
    call = MLPotential("ubio-s3")._impl._call(topology(atoms), system, None, DEFAULTS)
    last = [np.zeros((len(atoms), 3))]

    def late(state):
        energy, forces = call(state)
        last.append(forces)
        return energy, last.pop(0)

    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.addForce(openmm.PythonForce(late))
    return system


def test_langevin_in_a_box(MLPotential):
    atoms = box()
    system = MLPotential("ubio-s3").createSystem(topology(atoms))
    of = context(system, atoms, openmm.LangevinMiddleIntegrator(300, 5, STEP), "CPU")
    of.setVelocitiesToTemperature(300, 1)
    of.getIntegrator().step(100)
    kinetic = of.getState(energy=True).getKineticEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
    assert 200 < kinetic / (1.5 * 192) * 11604.5 < 420
    bonds = np.linalg.norm(positions(of)[1::3] - positions(of)[0::3], axis=1)
    assert bonds.min() > 0.8 and bonds.max() < 1.3


def test_barostat_scales_whole_molecules(MLPotential):
    """Energy and forces afterwards are those of the box that the barostat left, whatever it tried and took back."""
    atoms = box()
    system = MLPotential("ubio-s3").createSystem(topology(atoms))
    barostat, integrator = openmm.MonteCarloBarostat(2000, 300, 2), openmm.LangevinMiddleIntegrator(300, 5, STEP)
    barostat.setRandomNumberSeed(3), integrator.setRandomNumberSeed(3)
    system.addForce(barostat)
    of = context(system, atoms, integrator)
    of.setVelocitiesToTemperature(300, 1)
    volumes = []
    for _ in range(20):
        of.getIntegrator().step(4)
        volumes.append(of.getState().getPeriodicBoxVolume()._value * 1e3)
    assert len(set(volumes)) > 5 and abs(volumes[-1] / atoms.get_volume() - 1) < 0.2
    energy, forces = energy_and_forces(of)
    atoms.set_positions(positions(of))
    old = atoms.copy()
    atoms.set_cell(cell(of))
    atoms.calc, old.calc = OmniCalc(), OmniCalc()
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=2e-4)
    assert np.abs(forces - atoms.get_forces()).max() < 1e-4
    assert abs(old.get_potential_energy() - energy) > 0.01


class TestCheckpoint:
    def run(self, MLPotential, skin):  # noqa: N803
        atoms = cluster(8)
        system = MLPotential("ubio-s3", skin=skin).createSystem(topology(atoms))
        integrator = openmm.LangevinMiddleIntegrator(300, 5, STEP)
        integrator.setRandomNumberSeed(7)
        made = context(system, atoms, integrator)
        made.setVelocitiesToTemperature(300, 1)
        return made

    @pytest.mark.parametrize("skin", [0.0, 1.0])
    def test_goes_on_as_the_uninterrupted_run(self, MLPotential, skin):
        of = self.run(MLPotential, skin)
        of.getIntegrator().step(30)
        saved = of.createCheckpoint()
        of.getIntegrator().step(60)
        expected = positions(of)
        again = self.run(MLPotential, skin)
        again.loadCheckpoint(saved)
        again.getIntegrator().step(60)
        assert np.abs(positions(again) - expected).max() <= (0 if skin == 0 else 1e-4)
        again.getIntegrator().step(1)
        assert np.abs(positions(again) - expected).max() > 1e-4

    def test_state_as_xml(self, MLPotential):
        of = self.run(MLPotential, 1.0)
        of.getIntegrator().step(10)
        state = of.getState(positions=True, velocities=True, energy=True, forces=True)
        text = openmm.XmlSerializer.serialize(state)
        again = self.run(MLPotential, 1.0)
        again.setState(openmm.XmlSerializer.deserialize(text))
        assert energy_and_forces(again)[0] == pytest.approx(energy_and_forces(of)[0], abs=1e-5)


@pytest.fixture(scope="module")
def mm():
    top = topology(box())
    field = app.ForceField("amber14/tip3p.xml")
    system = field.createSystem(top, nonbondedMethod=app.PME, nonbondedCutoff=0.6, rigidWater=True)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    for k in set(range(192)) - set(range(0, 192, 3)):  # CHARMM's: without it hydrogens fall onto oxygens
        nonbonded.setParticleParameters(k, nonbonded.getParticleParameters(k)[0], 0.04, 0.1925)
    return system


@pytest.fixture(scope="module")
def chosen():
    atoms = box()
    distance = atoms.get_distances(0, range(0, 192, 3), mic=True)
    oxygen = 3 * np.sort(distance.argsort()[:6])
    return [int(k) for k in np.sort(np.concatenate([oxygen, oxygen + 1, oxygen + 2]))]


class TestMixed:
    """Six waters by the potential in rigid TIP3P water; mechanical embedding."""

    def test_energy_of_the_group(self, MLPotential, mm, chosen):
        """Periodic, although the atoms are a few out of the box."""
        atoms = box()
        system = MLPotential("ubio-s3", precision="double").createMixedSystem(topology(atoms), mm, chosen, forceGroup=5)
        energy, forces = energy_and_forces(context(system, atoms), {5})
        part = atoms[chosen]
        part.calc = OmniCalc(dtype="float64")
        assert energy == pytest.approx(part.get_potential_energy(), abs=1e-6 * 18)
        assert np.abs(forces[chosen] - part.get_forces()).max() < 1e-5
        assert system.getNumConstraints() == mm.getNumConstraints() - 18

    def test_interpolation_ends_at_both(self, MLPotential, mm, chosen):
        atoms = box()
        made, top = MLPotential("ubio-s3", precision="double"), topology(atoms)
        of = context(made.createMixedSystem(top, mm, chosen, interpolate=True), atoms)
        plain = context(made.createMixedSystem(top, mm, chosen), atoms)
        for value, other in ((0, context(mm, atoms)), (1, plain)):
            of.setParameter("lambda_interpolate", value)
            energy, forces = energy_and_forces(of)
            expected = energy_and_forces(other)
            assert energy == pytest.approx(expected[0], abs=1e-3)
            assert np.abs(forces - expected[1]).max() < 1e-3

    def test_hydrogens_without_lennard_jones_are_warned_of(self, MLPotential, mm, chosen):
        made, top = MLPotential("ubio-s3"), topology(box())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # by ASE, of what it does with NumPy 2.5
            made.createMixedSystem(top, mm, chosen)
        bare = app.ForceField("amber14/tip3p.xml").createSystem(top, nonbondedMethod=app.PME, nonbondedCutoff=0.6)
        with pytest.warns(UserWarning, match="12 hydrogens .* no Lennard-Jones term"):
            made.createMixedSystem(top, bare, chosen)

    @pytest.mark.parametrize("flexible", [True, False])
    def test_runs_on(self, MLPotential, mm, chosen, flexible):
        atoms = box()
        made = MLPotential("ubio-s3")
        system = made.createMixedSystem(topology(atoms), mm, chosen, removeConstraints=flexible)
        of = context(system, atoms, openmm.LangevinMiddleIntegrator(300, 5, STEP), "CPU")
        openmm.LocalEnergyMinimizer.minimize(of, 100.0, 30)
        of.setVelocitiesToTemperature(300, 1)
        of.getIntegrator().step(300)
        found = positions(of)
        bonds = np.linalg.norm(found[1::3] - found[0::3], axis=1)
        ours = np.isin(np.arange(0, 192, 3), chosen)
        assert np.ptp(bonds[~ours]) < 1e-3 and (np.ptp(bonds[ours]) > 0.01) == flexible
        assert bonds.min() > 0.85 and bonds.max() < 1.15
        kinetic = of.getState(energy=True).getKineticEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
        freedom = 3 * 192 - system.getNumConstraints()
        assert 180 < 2 * kinetic / freedom * 11604.5 < 420
