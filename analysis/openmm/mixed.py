"""Waters by the potential among TIP3P waters: do they stay whole, and at their temperature?

    python analysis/openmm/mixed.py [--waters 8] [--ps 10] [--seed 1] [--flexible]

Mechanical embedding as OpenMM-ML makes it: the potential among the chosen waters, TIP3P among the others and between
the two. All waters are rigid. With `--flexible` the chosen ones are not; their hydrogens then get the Lennard-Jones
term of CHARMM's TIP3P, because TIP3P's own have none, and only rigid waters can do without.

Langevin dynamics at 300 K. Prints a line per picosecond, then the mean temperature with its standard error, and exits
with 1 if an O-H bond of the chosen waters leaves 0.8 to 1.25 Å or the temperature is more than 4 standard errors off.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import openmm
from ase import Atoms
from ase.io import read
from openmm import app, unit
from openmmml import MLPotential
from overhead import topology_of

from omnicalc.analysis.blocks import block_mean, choose_blocks

BOX = Path(__file__).parents[2] / "examples" / "water.xyz"
KELVIN, STEP_FS, EVERY = 300.0, 0.5, 20
SIGMA, EPSILON = 0.0400, 0.1925  # nm, kJ/mol: Rmin/2 = 0.2245 Å, 0.046 kcal/mol (CHARMM's TIP3P hydrogen)
SHORTEST, LONGEST = 0.8, 1.25  # Å


def cluster_of(atoms: Atoms, n_waters: int) -> np.ndarray:
    """(n,) indices of the oxygens nearest to the first one."""
    distance = atoms.get_distances(0, range(0, len(atoms), 3), mic=True)
    return 3 * np.sort(distance.argsort()[:n_waters])


def mixed_system(atoms: Atoms, oxygen: np.ndarray, flexible: bool) -> openmm.System:
    topology = topology_of(atoms)
    field = app.ForceField("amber14/tip3p.xml")
    classical = field.createSystem(topology, nonbondedMethod=app.PME, nonbondedCutoff=0.6, rigidWater=True)
    nonbonded = next(force for force in classical.getForces() if isinstance(force, openmm.NonbondedForce))
    for k in np.concatenate([oxygen + 1, oxygen + 2]).tolist() if flexible else []:
        nonbonded.setParticleParameters(k, nonbonded.getParticleParameters(k)[0], SIGMA, EPSILON)
    chosen = np.sort(np.concatenate([oxygen, oxygen + 1, oxygen + 2])).tolist()
    return MLPotential("ubio-s3").createMixedSystem(topology, classical, chosen, removeConstraints=flexible)


def started(system: openmm.System, atoms: Atoms, seed: int) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 2.0, 1e-3 * STEP_FS)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(atoms.positions / 10)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 100)
    context.setVelocitiesToTemperature(KELVIN, seed)
    return context


def measured(context: openmm.Context, oxygen: np.ndarray) -> tuple[float, np.ndarray]:
    """Temperature, K, and O-H distances of the cluster, Å."""
    state = context.getState(positions=True, energy=True)
    system = context.getSystem()
    freedom = 3 * system.getNumParticles() - system.getNumConstraints() - 3  # OpenMM-ML's systems stop the drift
    temperature = 2 * state.getKineticEnergy() / (freedom * unit.MOLAR_GAS_CONSTANT_R)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    bonds = [np.linalg.norm(positions[oxygen + k] - positions[oxygen], axis=1) for k in (1, 2)]
    return temperature.value_in_unit(unit.kelvin), np.concatenate(bonds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waters", type=int, default=8)
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flexible", action="store_true", help="the chosen waters, with hydrogens that repel")
    options = parser.parse_args()
    atoms = read(BOX)
    oxygen = cluster_of(atoms, options.waters)
    context = started(mixed_system(atoms, oxygen, options.flexible), atoms, options.seed)
    steps, temperatures, ends = round(options.ps * 1000 / STEP_FS), [], []
    for step in range(EVERY, steps + 1, EVERY):
        context.getIntegrator().step(EVERY)
        temperature, bonds = measured(context, oxygen)
        temperatures.append(temperature)
        ends += [bonds.min(), bonds.max()]
        if step * STEP_FS % 1000 == 0:
            so_far = f"{np.mean(temperatures):6.1f} K  O-H {min(ends):.3f}-{max(ends):.3f} Å"
            print(f"{step * STEP_FS / 1000:6.1f} ps  {so_far}")
    kept = np.array(temperatures[len(temperatures) // 5 :])
    mean, error = block_mean(kept, choose_blocks(len(kept), 10))
    n_waters, known = len(atoms) // 3, "" if error is None else f" +- {error:.1f}"
    print(f"{options.waters} of {n_waters} waters by the potential, the others TIP3P: {mean:.1f}{known} K")
    off = error is not None and abs(mean - KELVIN) > 4 * error
    return int(min(ends) < SHORTEST or max(ends) > LONGEST or off)


if __name__ == "__main__":
    sys.exit(main())
