"""Waters for OpenMM and for ASE, and the way from one's units to the other's."""

from pathlib import Path

import numpy as np
import openmm
from ase import Atoms, units
from ase.io import read
from openmm import app, unit

BOX = Path(__file__).parents[2] / "examples" / "water.xyz"
FEMTOSECOND = 1e-3  # ps
KJ_PER_MOL = units.kJ / units.mol  # eV


def box() -> Atoms:
    """64 waters, periodic."""
    return read(BOX)


def cluster(n_waters: int) -> Atoms:
    """The waters nearest to the middle of the box, without periodic images."""
    atoms = box()
    oxygen = np.arange(0, len(atoms), 3)
    distance = np.linalg.norm(atoms.positions[oxygen] - atoms.cell.array.sum(0) / 2, axis=1)
    chosen = np.sort(oxygen[distance.argsort()[:n_waters]])
    part = atoms[np.sort(np.concatenate([chosen, chosen + 1, chosen + 2]))]
    part.set_cell(None)
    part.pbc = False
    return part


def topology(atoms: Atoms) -> app.Topology:
    """Residues of water from O, H, H; every other atom is a residue of its own."""
    made = app.Topology()
    chain = made.addChain()
    symbols, k = list(atoms.symbols), 0
    while k < len(symbols):
        water = symbols[k : k + 3] == ["O", "H", "H"]
        names = ["O", "H1", "H2"] if water else [symbols[k]]
        residue = made.addResidue("HOH" if water else symbols[k].upper(), chain)
        members = [made.addAtom(name, app.Element.getBySymbol(name.strip("12")), residue) for name in names]
        for hydrogen in members[1:]:
            made.addBond(members[0], hydrogen)
        k += len(names)
    if atoms.pbc.any():
        made.setPeriodicBoxVectors(atoms.cell.array / units.nm * unit.nanometer)
    return made


def context(system: openmm.System, atoms: Atoms, integrator=None, platform: str = "Reference") -> openmm.Context:
    """A Context of ``system`` at the positions, and in the cell, of ``atoms``."""
    integrator = integrator or openmm.VerletIntegrator(0.5 * FEMTOSECOND)
    made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    if atoms.pbc.any():
        made.setPeriodicBoxVectors(*atoms.cell.array / units.nm)
    made.setPositions(atoms.positions / units.nm)
    return made


def energy_and_forces(of: openmm.Context, groups=-1) -> tuple[float, np.ndarray]:
    """eV and eV/Å."""
    state = of.getState(energy=True, forces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return energy, forces * KJ_PER_MOL / units.nm


def positions(of: openmm.Context) -> np.ndarray:
    """Å."""
    return of.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)


def cell(of: openmm.Context) -> np.ndarray:
    """Å."""
    return of.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
