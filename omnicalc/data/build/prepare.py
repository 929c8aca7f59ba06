"""A structure file made ready for carving by OpenMM: hydrogens, solvent if wanted, minimisation, short dynamics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.build.crystal import assembled, holds_rna, pieces_of
from omnicalc.data.build.recipe import RECIPES
from omnicalc.errors import InputError

if TYPE_CHECKING:
    import MDAnalysis

SHIPPED = RECIPES / "structures"
_FORCE_FIELD = ("amber14-all.xml", "amber14/tip3pfb.xml")


@dataclass(frozen=True)
class Preparation:
    """What is done to a file. Lengths of dynamics in ps at 300 K, 2 fs with bonds to hydrogen held fixed.

    Without dynamics and solvent, hydrogens alone are relaxed: all else stays as the crystal has it.
    """

    file: str
    ps: float
    solvate: bool
    salt: float  # mol/L of NaCl, where it is solvated
    seed: int


@lru_cache(maxsize=2)
def prepared(preparation: Preparation) -> MDAnalysis.Universe:
    """The prepared box with bonds, as one frame of MDAnalysis (Å).

    Raises:
        InputError: no such file, OpenMM or its force field cannot take it (said why).
    """
    try:
        import MDAnalysis
        import openmm
        from openmm import app, unit
    except ImportError:
        raise InputError("carving needs OpenMM; type: pip install 'omnicalc[openmm]'") from None
    path = _found(preparation.file)
    pdb = app.PDBFile(str(path))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    if holds_rna(pdb.topology):
        places = np.array(pdb.positions.value_in_unit(unit.angstrom))
        modeller = assembled(pdb.topology, places, pieces_of(pdb.topology, places))
    try:
        field = app.ForceField(*_FORCE_FIELD)
        modeller.addHydrogens(field)
        if preparation.solvate:
            modeller.addSolvent(field, padding=0.9 * unit.nanometer, ionicStrength=preparation.salt * unit.molar)
        periodic = modeller.topology.getPeriodicBoxVectors() is not None
        method = app.PME if periodic else app.NoCutoff
        cutoff = 0.9 * unit.nanometer
        held = not preparation.solvate and preparation.ps == 0
        fixed = {"rigidWater": False} if held else {"constraints": app.HBonds}
        system = field.createSystem(modeller.topology, nonbondedMethod=method, nonbondedCutoff=cutoff, **fixed)
        for atom in modeller.topology.atoms():
            if held and atom.element.symbol != "H":
                system.setParticleMass(atom.index, 0.0)  # stays where the file has it
    except (ValueError, openmm.OpenMMException) as error:
        raise InputError(f"'{path}': OpenMM cannot prepare it: {error}") from None
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(preparation.seed)
    simulation = app.Simulation(modeller.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=100)
    if preparation.ps:
        simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, preparation.seed)
        simulation.step(int(preparation.ps * 500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a time step between frames, where there is one frame
        universe = MDAnalysis.Universe(simulation)
    if not periodic:
        universe.dimensions = None  # OpenMM has a box of its own for what has none
    return universe


def _found(file: str) -> Path:
    for path in (Path(file), SHIPPED / file):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.name for path in SHIPPED.glob("*.pdb")))
    raise InputError(f"'{file}' is not there; file= of a group of kind carve is a PDB file or a shipped one: {shipped}")
