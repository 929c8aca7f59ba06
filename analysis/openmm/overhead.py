"""What OpenMM adds to a force call: time of a Verlet step less the time spent in the potential itself.

    python analysis/openmm/overhead.py [--copies 2 2 1] [--steps 100] [--threads 1]

Both are taken in the same steps, so that a busy machine slows both alike. "Callback" is what our function takes beyond
the potential: units, the box, the check for finite numbers. "OpenMM" is the rest: the integrator and the way into
Python and back.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from ase import Atoms, units
from ase.io import read
from openmm import app, unit

from omnicalc.interfaces.openmm_system import DEFAULTS, OmniCalcPotentialImpl

BOX = Path(__file__).parents[2] / "examples" / "water.xyz"


class Timed:
    """A callable that notes how long each call took, in ms."""

    def __init__(self, call):
        self.call, self.spent = call, []

    def __call__(self, *args):
        start = time.perf_counter()
        try:
            return self.call(*args)
        finally:
            self.spent.append(1e3 * (time.perf_counter() - start))


def topology_of(atoms: Atoms) -> app.Topology:
    """Waters, atoms in the order O, H, H."""
    topology = app.Topology()
    chain = topology.addChain()
    oxygen, hydrogen = app.Element.getBySymbol("O"), app.Element.getBySymbol("H")
    for _ in range(len(atoms) // 3):
        residue = topology.addResidue("HOH", chain)
        first = topology.addAtom("O", oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(first, topology.addAtom(name, hydrogen, residue))
    topology.setPeriodicBoxVectors(atoms.cell.array / units.nm * unit.nanometer)
    return topology


def measure(atoms: Atoms, steps: int, platform: str) -> dict[str, np.ndarray]:
    """Per step, ms: the whole step, our callback, and the potential inside it."""
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    call = OmniCalcPotentialImpl("ubio-s3")._call(topology_of(atoms), system, None, DEFAULTS)
    callback = Timed(call)
    force = openmm.PythonForce(lambda state: callback(state))
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    threads = {"Threads": str(torch.get_num_threads())} if platform == "CPU" else {}
    integrator = openmm.VerletIntegrator(5e-4)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), threads)
    context.setPeriodicBoxVectors(*atoms.cell.array / units.nm)
    context.setPositions(atoms.positions / units.nm)
    context.setVelocitiesToTemperature(300, 1)
    step = Timed(integrator.step)
    step(10)
    call._bound = potential = Timed(call._bound)
    potential.systems = potential.call.systems
    for timed in (callback, step):
        timed.spent.clear()
    for _ in range(steps):
        step(1)
    return {"step": np.array(step.spent), "callback": np.array(callback.spent), "potential": np.array(potential.spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, nargs=3, default=[2, 2, 1], help="of the 192-atom box")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--platforms", nargs="+", default=["Reference", "CPU"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    atoms = read(BOX).repeat(options.copies)
    print(f"{len(atoms)} atoms, {options.steps} steps, {options.threads} threads, medians in ms")
    print(f"{'platform':10} {'step':>8} {'potential':>10} {'callback +':>11} {'OpenMM +':>9} {'together':>9}")
    for platform in options.platforms:
        found = measure(atoms, options.steps, platform)
        callback = np.median(found["callback"] - found["potential"])
        rest = np.median(found["step"] - found["callback"])
        together = np.median(found["step"] - found["potential"])
        step, potential = np.median(found["step"]), np.median(found["potential"])
        print(f"{platform:10} {step:8.2f} {potential:10.2f} {callback:11.3f} {rest:9.3f} {together:9.3f}")


if __name__ == "__main__":
    main()
