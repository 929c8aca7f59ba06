"""Molecular dynamics with the Amber force fields that OpenMM ships, in parts that a resumed run does not repeat.

Water is TIP3P, Na and Cl those of Joung and Cheatham, Mg the 12-6 set of Li and Merz, peptides ff14SB, RNA OL3. Bonds
to hydrogen are constrained, waters rigid; 2 fs steps, Langevin (middle scheme, friction 1/ps), PME.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import islice
from pathlib import Path

from ase import Atoms
from ase.io import read, write

from omnicalc.analysis.quiet import quietly
from omnicalc.errors import InputError
from omnicalc.files import write_atomically

FILES = ("amber14/protein.ff14SB.xml", "amber14/RNA.OL3.xml", "amber14/tip3p.xml")
STEP_FS, FRICTION, CUTOFF = 2.0, 1.0, 9.0  # fs, 1/ps, Å
PART_PS = 5.0


def openmm():
    """The OpenMM package; InputError with the pip command where it is missing."""
    try:
        import openmm
    except ImportError:
        raise InputError("this needs OpenMM; install it with: pip install 'omnicalc[openmm]'") from None
    return openmm


def topology_of(atoms: Atoms):
    """An OpenMM topology of labelled atoms, with the bonds of the residues that OpenMM knows."""
    openmm()
    from openmm import app, unit

    topology = app.Topology()
    arrays = atoms.arrays
    chain = residue = last = None
    for k in range(len(atoms)):
        here = (arrays["chains"][k], arrays["residuenumbers"][k], arrays["residuenames"][k])
        if last is None or here[0] != last[0]:
            chain = topology.addChain()
        if here != last:
            residue = topology.addResidue(str(here[2]), chain, str(here[1]))
        topology.addAtom(str(arrays["atomtypes"][k]), app.Element.getByAtomicNumber(int(atoms.numbers[k])), residue)
        last = here
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors(atoms.cell.array * 0.1 * unit.nanometer)
    topology.createStandardBonds()
    return topology


def run_amber(atoms: Atoms, folder: Path, *, ps: float, frame_ps: float, temperature: float, seed: int, threads: int):
    """Run ``ps`` picoseconds at constant volume in ``folder``: topology.pdb and traj.dcd; goes on with what is there.

    Raises InputError for a force field that does not know the atoms, and for a folder with another run.
    """
    openmm()
    from openmm import app

    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "engine": "amber",
        "force_field": list(FILES),
        "atoms": _identity(atoms),
        "timestep_fs": STEP_FS,
        "frame_ps": frame_ps,
        "temperature_K": temperature,
        "seed": seed,
    }
    _same_run(folder / "amber.json", about)
    start = folder / "system.xyz"
    if not start.exists():
        write_atomically(start, lambda part: write(part, atoms, format="extxyz"))
    atoms = read(start)
    topology = topology_of(atoms)
    with (folder / "topology.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, atoms.positions, file)
    (folder / "parts").mkdir(exist_ok=True)
    per_frame = round(frame_ps * 1000 / STEP_FS)
    wanted, most = round(ps / frame_ps), max(1, round(PART_PS / frame_ps))
    parts = _whole_parts(folder / "parts")
    done = sum(map(_frames, parts))
    if done < wanted:
        simulation = _simulation(topology, atoms, temperature, seed, threads)
        if parts:
            simulation.loadState(str(parts[-1].with_suffix(".xml")))
        else:
            _start(simulation, atoms, temperature, seed)
    while done < wanted:
        count = min(most, wanted - done)
        parts.append(folder / "parts" / f"{len(parts):04d}.dcd")
        _one_part(simulation, parts[-1], count, per_frame)
        done += count
        print(f"{folder}: {done * frame_ps:g} of {ps:g} ps", file=sys.stderr, flush=True)
    _join(parts, folder / "traj.dcd", wanted)


def _whole_parts(folder: Path) -> list[Path]:
    """Parts that have their state, in order; they may be of any length."""
    parts = []
    while (part := folder / f"{len(parts):04d}.dcd").with_suffix(".xml").exists():
        parts.append(part)
    return parts


def _frames(part: Path) -> int:
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with DCDFile(str(part)) as frames:
        return len(frames)


def _identity(atoms: Atoms) -> str:
    """Hash of cell and of all but water, without places: hydrogens are placed a little differently every time."""
    residues = atoms.arrays["residuenames"]
    other = residues != "HOH"
    digest = hashlib.sha256(atoms.numbers[other].tobytes() + atoms.cell.array.round(6).tobytes())
    digest.update("".join(residues[other]).encode())
    return digest.hexdigest()


def _same_run(path: Path, about: dict) -> None:
    if not path.exists():
        write_atomically(path, lambda part: part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8"))
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    different = [key for key, value in about.items() if there.get(key) != value]
    if different:
        raise InputError(f"{path.parent} holds another run ({', '.join(different)} differ); give another --out")


def _simulation(topology, atoms: Atoms, temperature: float, seed: int, threads: int):
    from openmm import LangevinMiddleIntegrator, Platform, app, unit

    field = app.ForceField(*FILES)
    periodic = bool(atoms.pbc.all())
    reach = min(CUTOFF, 0.49 * float(atoms.cell.lengths().min())) if periodic else CUTOFF
    try:
        system = field.createSystem(
            topology,
            nonbondedMethod=app.PME if periodic else app.NoCutoff,
            nonbondedCutoff=reach * unit.angstrom,
            constraints=app.HBonds,
            rigidWater=True,
        )
    except ValueError as error:
        raise InputError(f"the Amber force fields that OpenMM ships do not know these molecules: {error}") from None
    integrator = LangevinMiddleIntegrator(temperature, FRICTION, STEP_FS * unit.femtosecond)
    integrator.setRandomNumberSeed(seed + 1)
    platform = Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": str(threads)})
    simulation.context.setPositions(atoms.positions * 0.1)
    return simulation


def _start(simulation, atoms: Atoms, temperature: float, seed: int) -> None:
    simulation.minimizeEnergy(maxIterations=300)
    simulation.context.setVelocitiesToTemperature(temperature, seed + 1)


def _one_part(simulation, path: Path, frames: int, every: int) -> None:
    """Frames of one part; its state is written last, so that a part with a state is whole."""
    from openmm import app

    simulation.reporters = [app.DCDReporter(str(path), every, enforcePeriodicBox=False)]
    simulation.step(frames * every)
    simulation.reporters = []  # closes the file
    write_atomically(path.with_suffix(".xml"), lambda part: simulation.saveState(str(part)))


def _join(parts: list[Path], path: Path, count: int) -> None:
    """The first ``count`` frames of all parts in one file."""
    from MDAnalysis.lib.formats.libdcd import DCDFile

    def write(part: Path) -> None:
        left = count
        with quietly(), DCDFile(str(part), "w") as out:
            for k, piece in enumerate(parts):
                with DCDFile(str(piece)) as frames:
                    if k == 0:
                        about = frames.header
                        keep = ("remarks", "natoms", "istart", "nsavc", "delta", "is_periodic")
                        out.write_header(**{key: about[key] for key in keep if key in about})
                    for frame in islice(frames, left):
                        out.write(xyz=frame.xyz, box=frame.unitcell)
                    left = max(0, left - len(frames))

    write_atomically(path, write)
