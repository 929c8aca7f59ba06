"""Alanine dipeptide by the potential in TIP3P water by Amber: does it stay whole?

    python analysis/openmm/alanine.py [--model ubio-s2] [--ps 10] [--seed 1]

Mechanical embedding as OpenMM-ML makes it: the 22 atoms of Ace-Ala-Nme by the potential, water and all between the two
by amber14 with TIP3P. Langevin dynamics at 300 K, 0.5 fs. Prints a line per picosecond: the largest change of a bond of
the peptide since the start; exits with 1 as soon as one exceeds 0.6 Å.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from openmmml import MLPotential

from omnicalc.registry import resolve

PEPTIDE = Path(__file__).parents[1] / "structures" / "alanine_dipeptide.pdb"
KELVIN, STEP_FS, EVERY = 300.0, 0.5, 200
BROKEN = 0.6  # Å


def solvated() -> app.Modeller:
    pdb = app.PDBFile(str(PEPTIDE))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.deleteWater()
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller.addSolvent(field, model="tip3p", padding=1.0 * unit.nanometer)
    return modeller


def mixed_system(topology: app.Topology, peptide: list[int], model: str) -> openmm.System:
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    classical = field.createSystem(topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9, rigidWater=True)
    folder, _ = resolve(model)
    return MLPotential("omnicalc", modelPath=str(folder)).createMixedSystem(topology, classical, peptide)


def lengths(context: openmm.Context, bonds: list[tuple[int, int]]) -> np.ndarray:
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    return np.array([np.linalg.norm(positions[a] - positions[b]) for a, b in bonds])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ubio-s2")
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    modeller = solvated()
    topology = modeller.topology
    peptide = [a.index for a in topology.atoms() if a.residue.name != "HOH"]
    inside = set(peptide)
    bonds = [(a.index, b.index) for a, b in topology.bonds() if {a.index, b.index} <= inside]
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1.0, 1e-3 * STEP_FS)
    integrator.setRandomNumberSeed(options.seed)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(mixed_system(topology, peptide, options.model), integrator, platform)
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 100)
    context.setVelocitiesToTemperature(KELVIN, options.seed)
    print(f"{len(peptide)} atoms by {options.model}, {topology.getNumAtoms() - len(peptide)} by Amber")
    start, worst = lengths(context, bonds), 0.0
    for step in range(EVERY, round(options.ps * 1000 / STEP_FS) + 1, EVERY):
        integrator.step(EVERY)
        worst = max(worst, float(np.abs(lengths(context, bonds) - start).max()))
        if worst > BROKEN:
            print(f"{step * STEP_FS / 1000:6.1f} ps  a bond changed by {worst:.2f} Å: broken")
            return 1
        if step * STEP_FS % 1000 == 0:
            print(f"{step * STEP_FS / 1000:6.1f} ps  largest change of a bond {worst:.3f} Å", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
