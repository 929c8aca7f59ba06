"""One water molecule in all its shapes: structures to label, and labels brought to the energy scale of a liquid's head.

    python -m analysis.water.monomers shapes --out shapes.xyz
    omnicalc label shapes.xyz --method pbe0/def2-tzvp --out labels.extxyz
    python -m analysis.water.monomers shift labels.extxyz --lowest -467.428 --out water-monomer-pbe0.extxyz.gz

Energies of all electrons and of pseudopotentials have no common zero, so that frames of a liquid say nothing of how
much energy a molecule alone has more than one in the liquid. ``shift`` moves all energies by the constant that takes
the lowest of them to ``--lowest`` (eV). The first frame of ``shapes`` is the molecule at rest (PBE0/def2-TZVP), which
is the lowest.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms

from omnicalc.data.readers import open_frames
from omnicalc.data.subset import write_frames

REST = (0.9589, 0.9589, 104.6)  # Å, Å, degrees
SHAPES = 160


def water(r1: float, r2: float, degrees: float) -> Atoms:
    angle = np.radians(degrees)
    atoms = Atoms("OHH", [[0, 0, 0], [r1, 0, 0], [r2 * np.cos(angle), r2 * np.sin(angle), 0]])
    atoms.info = {"charge": 0, "spin": 1, "config_type": "water", "molecule": "water", "system": "water"}
    return atoms


def shapes(seed: int) -> list[Atoms]:
    """At rest, then random: bonds of 0.78 to 1.35 Å, in every fourth one to 1.8 Å; angles of 70 to 150 degrees."""
    rng = np.random.default_rng(seed)
    found = [water(*REST)]
    while len(found) < SHAPES:
        longest = 1.8 if len(found) % 4 == 0 else 1.35
        found.append(water(rng.uniform(0.78, longest), rng.uniform(0.78, 1.35), rng.uniform(70, 150)))
    for atoms in found:
        atoms.info["origin"] = "shape"
    found[0].info["origin"] = "rest"
    return found


def shift(files: list[Path], lowest: float) -> list[Atoms]:
    """Frames of one molecule, energies moved."""
    frames = [atoms for file in files for atoms in open_frames(file) if len(atoms) == 3]
    moved = lowest - min(atoms.get_potential_energy() for atoms in frames)
    for number, atoms in enumerate(frames):
        atoms.calc.results["energy"] += moved
        atoms.info["split"] = "valid" if number % 10 == 9 else "train"
        atoms.info["level_of_theory"] += f", energies moved by {moved:.6f} eV"
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("shapes", help="structures to label")
    made.add_argument("--seed", type=int, default=0)
    moved = verbs.add_parser("shift", help="labels on another scale of energies")
    moved.add_argument("labels", type=Path, nargs="+", help="labelled frames; those of one molecule are taken")
    moved.add_argument("--lowest", type=float, required=True, help="energy that the lowest frame is given, eV")
    for verb in (made, moved):
        verb.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    frames = shapes(options.seed) if options.verb == "shapes" else shift(options.labels, options.lowest)
    write_frames(options.out, frames)
    print(f"{options.out}: {len(frames)} frames")


if __name__ == "__main__":
    main()
