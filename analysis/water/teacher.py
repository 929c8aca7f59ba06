"""Frames that small weights learn from: a larger potential's dynamics, where the DFT frames never go.

    python -m analysis.water.teacher --salt FRAMES --out DATA

The DFT frames of water and salt water are classical snapshots near 330 K at one volume. Here the teacher,
``ubio-s3:wide@0.7``, runs such boxes hotter, squeezed and swollen, water as path integrals too, whose O-H bonds are
far longer and shorter; every kept frame is labelled by it (eV, eV/Å). FRAMES is the NaCl file that the recipe
``ubio-s3-small`` names; one frame of each of five compositions is a start. Writes ``teacher-water.extxyz`` (head
pbe0-ts) and ``teacher-salt.extxyz`` (revpbe0-d3), in a quarter of an hour of one core. An interrupted command goes on
with what is missing; runs that come apart give the frames they have.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from omnicalc import OmniCalc
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.data.readers import open_frames
from omnicalc.data.subset import write_frames
from omnicalc.md.molecules import molecules_of

TEACHER = "ubio-s3:wide@0.7"
WATER = Path(__file__).parents[2] / "examples" / "water.xyz"
TOO_STRONG = 30.0  # eV/Å: where the teacher itself has come apart
PAIRS = (1, 2, 4, 6, 8)  # of Na+ and Cl- in a box


@dataclass(frozen=True)
class Run:
    """``scale``: of the edges of the box; ``options``: of ``omnicalc md``."""

    name: str
    scale: float
    options: str


WATER_RUNS = (
    Run("hot", 1.00, "--temperature 300:700 --steps 6000 --interval 50 --friction 0.02"),
    Run("dense", 0.97, "--temperature 300:600 --steps 4000 --interval 50 --friction 0.02"),
    Run("light", 1.03, "--temperature 300:600 --steps 4000 --interval 50 --friction 0.02"),
    Run("thin", 1.08, "--temperature 300:600 --steps 4000 --interval 50 --friction 0.02"),
    Run("quantum", 1.00, "--temperature 300 --beads 16 --steps 1200 --interval 10"),
    Run("quantum-light", 1.03, "--temperature 400 --beads 8 --steps 1000 --interval 10"),
)
SALT_RUNS = (
    Run("hot", 1.00, "--temperature 300:600 --steps 2500 --interval 50 --friction 0.02"),
    Run("light", 1.03, "--temperature 300:500 --steps 1500 --interval 50 --friction 0.02"),
)


def scaled(atoms: Atoms, factor: float) -> Atoms:
    """The box with its edges times ``factor``; molecules move with their centres and keep their shape."""
    found = molecules_of(atoms)
    whole = atoms.positions + found.images @ atoms.cell.array
    centres = np.stack([whole[found.molecule == m].mean(0) for m in range(found.count)])
    result = atoms.copy()
    result.positions = whole + (factor - 1.0) * centres[found.molecule]
    result.cell = factor * atoms.cell.array
    return result


def salt_starts(file: Path) -> dict[str, Atoms]:
    """The first training frame of each composition."""
    found = {}
    for atoms in open_frames(file):
        if atoms.info["split"] == "train" and atoms.info["quality"] == "ok":
            found.setdefault(atoms.info["n_ion_pairs"], atoms)
    return {f"salt{pairs}": found[pairs] for pairs in PAIRS}


def simulate(box: Path, folder: Path, options: str, first: str) -> None:
    """``omnicalc md`` with ``options``, and with those of ``first`` where it is no run yet to go on with."""
    command = [sys.executable, "-m", "omnicalc", "md", str(box), "--out", str(folder), *options.split()]
    subprocess.run([*command, *(["--resume"] if (folder / "run.json").exists() else first.split())], check=False)


def frames_of(start: Atoms, run: Run, head: str, folder: Path) -> list[Atoms]:
    """Frames of one run without labels, the start left out; the run is made or finished first."""
    box = folder.with_suffix(".xyz")
    if not box.exists():
        bare = Atoms(start.numbers, positions=start.positions, cell=start.cell, pbc=True)
        write_frames(box, [scaled(bare, run.scale)])
    simulate(box, folder, f"{run.options} --guard bond=off", f"--model {TEACHER} --head {head} --seed 1")
    trajectory, template, frames = open_trajectory(folder / "traj.dcd"), read(box), []
    for shown in trajectory.frames(range(1, trajectory.n_frames)):
        frame = template.copy()
        frame.positions = shown.positions
        frame.info = {"system": folder.name, "origin": run.name}
        frames.append(frame)
    return frames


def labelled(frames: list[Atoms], head: str) -> list[Atoms]:
    """With the teacher's energies and forces; those with too strong forces left out."""
    calc, kept = OmniCalc(TEACHER, head=head), []
    for frame in frames:
        calc.calculate(frame, ["energy", "forces"], ["positions"])
        energy, forces = calc.results["energy"], calc.results["forces"]
        if np.abs(forces).max() < TOO_STRONG:
            frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
            kept.append(frame)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salt", type=Path, required=True, help="NaCl frames, as the recipe ubio-s3-small names them")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    (options.out / "teacher").mkdir(parents=True, exist_ok=True)
    water = {"water": read(WATER)}
    for name, head, starts, runs in (
        ("water", "pbe0-ts", water, WATER_RUNS),
        ("salt", "revpbe0-d3", salt_starts(options.salt), SALT_RUNS),
    ):
        frames = [
            frame
            for run in runs
            for system, start in starts.items()
            for frame in frames_of(start, run, head, options.out / "teacher" / f"{system}-{run.name}")
        ]
        kept = labelled(frames, head)
        target = options.out / f"teacher-{name}.extxyz"
        write_frames(target, kept)
        print(f"{target}: {len(kept)} of {len(frames)} frames", flush=True)


if __name__ == "__main__":
    main()
