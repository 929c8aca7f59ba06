"""Umbrella sampling in OpenMM: free energy along the torsion C-C-O-H of ethanol, windows put together by MBAR.

    python examples/umbrella.py [--ps 10] [--windows 18] [--seed 1]

Needs pip install '.[openmm]'. The spring of a window is U = k d²/2, d the angle from its centre. Ethanol is its own
mirror image when the torsion changes its sign, so the two columns, of positive and negative torsions, should agree: how
far they do not is the statistical error.
"""

import argparse

import numpy as np
import openmm
from ase.build import molecule
from openmm import app, unit
from openmmml import MLPotential

TORSION = (0, 1, 2, 3)  # C, C, O, H
KELVIN, STEP_FS, EVERY = 300.0, 0.5, 10
KT = (KELVIN * unit.kelvin * unit.MOLAR_GAS_CONSTANT_R).value_in_unit(unit.kilojoule_per_mole)
STIFFNESS = 80.0  # kJ/mol/rad²
SPRING = "k*d^2/2; d = min(far, 2*pi - far); far = abs(theta - centre); pi = 3.141592653589793"
BIN = np.radians(10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ps", type=float, default=10.0, help="of each window, after a fifth more that is left out")
    parser.add_argument("--windows", type=int, default=18)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    context = ethanol(options.seed)
    centres = np.pi - 2 * np.pi * np.arange(options.windows) / options.windows  # from trans, where it starts
    count = round(1000 * options.ps / STEP_FS / EVERY)
    torsions = np.concatenate([sampled(context, centre, count) for centre in centres])
    weights = mbar(bias(torsions, centres) / KT, count)
    edges = np.linspace(0.0, np.pi, round(np.pi / BIN) + 1)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        found = [weights[(low <= side) & (side < high)].sum() for side in (torsions, -torsions)]
        told = "  ".join(f"{-KT * np.log(w / BIN):6.2f}" if w else "   -  " for w in found)
        print(f"{np.degrees(low):5.0f} to {np.degrees(high):3.0f}°  {told} kJ/mol")


def ethanol(seed: int) -> openmm.Context:
    """The molecule by the potential, with a spring on its torsion."""
    atoms = molecule("CH3CH2OH")
    topology = app.Topology()
    residue = topology.addResidue("EOH", topology.addChain())
    for symbol in atoms.get_chemical_symbols():
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    system = MLPotential("ubio-s2").createSystem(topology)
    spring = openmm.CustomTorsionForce(SPRING)
    spring.addGlobalParameter("k", STIFFNESS)
    spring.addGlobalParameter("centre", np.pi)
    spring.addTorsion(*TORSION)
    system.addForce(spring)
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 5.0, 1e-3 * STEP_FS)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(atoms.positions / 10)
    context.setVelocitiesToTemperature(KELVIN, seed)
    return context


def sampled(context: openmm.Context, centre: float, count: int) -> np.ndarray:
    """Torsions that one window visits, rad."""
    context.setParameter("centre", centre)
    context.getIntegrator().step(EVERY * (count // 5))
    return np.array([next_torsion(context) for _ in range(count)])


def next_torsion(context: openmm.Context) -> float:
    """The torsion after EVERY more steps, rad, as OpenMM's theta."""
    context.getIntegrator().step(EVERY)
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    a, b, c = np.diff(positions[list(TORSION)], axis=0)
    left, right = np.cross(a, b), np.cross(b, c)
    return float(np.arctan2(np.linalg.norm(b) * (a @ right), left @ right))


def bias(torsions: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(window, sample), kJ/mol: what every window's spring would be at every sample."""
    far = np.abs(torsions - centres[:, None])
    return 0.5 * STIFFNESS * np.minimum(far, 2 * np.pi - far) ** 2


def mbar(reduced: np.ndarray, count: int) -> np.ndarray:
    """Weights without springs, which add up to 1, of samples of which ``count`` are from each window.

    Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008); for errors and correlated samples take pymbar.
    """
    boltzmann, z = np.exp(-reduced), np.ones(len(reduced))
    for _ in range(10_000):
        mixture = 1.0 / ((count / z) @ boltzmann)
        new = boltzmann @ mixture
        new /= new[0]
        if np.abs(np.log(new / z)).max() < 1e-8:
            break
        z = new
    return mixture / mixture.sum()


if __name__ == "__main__":
    main()
