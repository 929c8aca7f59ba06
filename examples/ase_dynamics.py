"""The potential as an ASE calculator: energy, forces, stress, and 20 steps of ASE's own molecular dynamics."""

from pathlib import Path

from ase import units
from ase.io import read
from ase.md.verlet import VelocityVerlet

from omnicalc import OmniCalc

atoms = read(Path(__file__).parent / "water.xyz")
atoms.calc = OmniCalc("ubio-s3")
print(f"{atoms.calc.name_resolved}, {len(atoms)} atoms")
print(f"energy {atoms.get_potential_energy():.3f} eV, head {atoms.calc.head}")
print(f"largest force component {abs(atoms.get_forces()).max():.2f} eV/Å")
print(f"pressure {-atoms.get_stress()[:3].mean() / units.GPa:.2f} GPa without the kinetic part")

dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
before = atoms.get_total_energy()
dynamics.run(20)
print(f"after 10 fs the total energy changed by {1e3 * (atoms.get_total_energy() - before):.2f} meV")
