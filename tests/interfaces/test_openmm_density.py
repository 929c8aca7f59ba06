"""Density of argon at constant pressure: our barostats against OpenMM's own force and Monte-Carlo barostat.

By hand: ``pytest -m slow tests/interfaces/test_openmm_density.py -s``.
"""

from pathlib import Path

import numpy as np
import pytest
from ase import units

pytest.importorskip("openmm")

import openmm  # noqa: E402
from openmm import unit  # noqa: E402

from omnicalc.md.dynamics import Dynamics  # noqa: E402
from omnicalc.md.guards import Guards  # noqa: E402
from omnicalc.md.initial import initial_state  # noqa: E402
from omnicalc.md.settings import Settings  # noqa: E402
from tests.md.statistics import mean_and_error  # noqa: E402
from tests.md.toy import Pairs, argon, pairs_job  # noqa: E402

KELVIN, BAR, STEPS = 60.0, 2000.0, 10_000
KJ_PER_MOL = units.kJ / units.mol


def openmm_volumes(pressure_bar: float = BAR, steps: int = 200_000) -> np.ndarray:
    """Å^3, every 50 steps of 5 fs."""
    atoms, system = argon(3), openmm.System()
    well = "4*e*((s/r)^12-(s/r)^6)*(1-(r/c)^2)^3"
    force = openmm.CustomNonbondedForce(
        f"{well}; e={Pairs.epsilon / KJ_PER_MOL}; s={Pairs.sigma / 10}; c={Pairs.cutoff / 10}"
    )
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(Pairs.cutoff / 10)
    system.setDefaultPeriodicBoxVectors(*atoms.cell.array / 10)
    for mass in atoms.get_masses():
        system.addParticle(mass)
        force.addParticle([])
    system.addForce(force)
    barostat = openmm.MonteCarloBarostat(pressure_bar, KELVIN, 10)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 5.0, 0.005)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(atoms.positions / 10)
    context.setVelocitiesToTemperature(KELVIN, 1)
    found = []
    for _ in range(steps // 50):
        integrator.step(50)
        found.append(context.getState().getPeriodicBoxVolume().value_in_unit(unit.angstrom**3))
    return np.array(found[len(found) // 10 :])


def our_volumes(barostat: str, thermostat: str) -> np.ndarray:
    settings = Settings(
        ensemble="npt", barostat=barostat, thermostat=thermostat, timestep_fs=5.0, temperature_K=KELVIN,
        pressure_bar=BAR, compressibility_per_bar=5e-5, barostat_time_fs=400.0, barostat_interval=4,
        friction_per_fs=0.005, interval=100, thermostat_time_fs=200.0,
    )  # fmt: skip
    job = pairs_job(argon(3))
    dynamics = Dynamics(job, settings)
    state, found = initial_state(job.atoms, dynamics, settings, Guards(settings, job.atoms, Path(), print)), []
    for k in range(STEPS):
        state = dynamics.step(state)
        if k > STEPS // 5 and k % 5 == 4:
            found.append(state.volume)
    return np.array(found)


@pytest.mark.slow
def test_density_agrees_with_openmm():
    """And 300 bar more are seen."""
    expected, error = mean_and_error(openmm_volumes())
    other, other_error = mean_and_error(openmm_volumes(BAR + 300.0))
    print(f"\nOpenMM {expected:.1f} +- {error:.1f} A^3; at 300 bar more {other:.1f} +- {other_error:.1f}")
    for pair in (("rescale", "langevin"), ("rescale", "bussi"), ("mc", "langevin")):
        mean, own = mean_and_error(our_volumes(*pair))
        print(f"{pair}: {mean:.1f} +- {own:.1f} A^3")
        assert abs(mean - expected) < 4 * np.hypot(own, error)
        assert abs(mean - other) > 4 * np.hypot(own, other_error)
