"""Make examples/water.xyz: 64 waters in a periodic cube of 12.4447 Å (0.993 g/cm3), equilibrated at 300 K.

Molecules start on a grid in random orientations that keep hydrogens of neighbours apart, are relaxed, and then move
for 3 ps with a thermostat. Usage: python examples/make_water_box.py [OUTPUT]
"""

import sys

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.io import write
from ase.io.formats import filetype
from ase.md.langevin import Langevin
from ase.optimize import FIRE

from omnicalc import OmniCalc

EDGE, SIDE = 12.4447, 4  # Å, molecules per edge


def oriented_waters(rng: np.random.Generator) -> Atoms:
    """Waters on a grid; each is turned until its hydrogens are at least 1.7 Å from those placed before."""
    box = Atoms(cell=[EDGE] * 3, pbc=True)
    for k in range(SIDE**3):
        place = (np.array([k % SIDE, k // SIDE % SIDE, k // SIDE**2]) + 0.5) * EDGE / SIDE
        for _ in range(1000):
            water = molecule("H2O")
            water.rotate(rng.uniform(0, 360), rng.normal(size=3))
            water.positions += place - water.positions[0]
            trial = box + water
            new = range(len(box), len(trial))
            if not len(box) or min(trial.get_distances(i, range(len(box)), mic=True).min() for i in new) > 1.7:
                break
        box = trial
    return box


def main() -> None:
    output = sys.argv[1] if len(sys.argv) > 1 else "examples/water.xyz"
    filetype(output, read=False)  # ends here, not after the run, where the name does not say a format
    rng = np.random.default_rng(64)
    atoms = oriented_waters(rng)
    atoms.calc = OmniCalc(sys.argv[2] if len(sys.argv) > 2 else "ubio-s3", head="pbe0-ts")
    FIRE(atoms, logfile=None).run(fmax=0.5, steps=300)
    atoms.set_velocities(rng.normal(size=(len(atoms), 3)) * np.sqrt(300 * units.kB / atoms.get_masses())[:, None])
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.02 / units.fs, rng=rng)
    for _ in range(6):
        dynamics.run(1000)
        print(f"{dynamics.get_time() / units.fs:.0f} fs  {atoms.get_temperature():.0f} K")
    atoms.calc = None
    atoms.set_momenta(None)
    write(output, atoms, columns=["symbols", "positions"], plain=False)


if __name__ == "__main__":
    main()
