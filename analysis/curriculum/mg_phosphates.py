"""Mg2+ at one oxygen of a phosphate with five waters around it, as in RNA, to be labelled and learned from.

    python -m analysis.curriculum.mg_phosphates --out mg-shells.xyz
    omnicalc label mg-shells.xyz --grid 2 --convergence 1e-7 --out mg-shells-dft.extxyz

In clusters grown in the gas phase a phosphate takes Mg between two of its oxygens and most waters stay outside, so the
octahedron is built: the phosphate on one corner, waters on the five others, more waters around. From there a trained
potential's own dynamics, at alternating temperatures; of its frames the ion, the phosphate and the waters nearest to
the ion are kept, wherever these have gone. Sizes alternate in the file, so that any beginning of it is a fair part.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import FIRE

from analysis.curriculum.own_dynamics import run
from omnicalc import OmniCalc
from omnicalc.data.build.geometry import Piece, piece
from omnicalc.data.build.placing import place
from omnicalc.data.subset import in_turn, write_frames

PHOSPHATES = {
    "train": {
        "dihydrogen-phosphate": "OP(=O)([O-])O",
        "methylphosphonate-h": "CP(=O)([O-])O",
        "methyl-hydrogenphosphate": "COP(=O)([O-])O",
        "dmp": "COP(=O)([O-])OC",
    },
    "test": {"ethylene-phosphate": "O=P1([O-])OCCO1"},  # a test molecule of the other files too
}
TO_PHOSPHATE, TO_WATER, P_O_MG = 2.05, 2.10, 148.0  # Å, Å, degrees: Mg in RNA
AROUND = 7  # waters beyond the first shell
KELVIN = (300.0, 400.0)


def octahedron(phosphate: Atoms, water: Atoms, rng: np.random.Generator) -> Atoms:
    """``phosphate``, then Mg at one of its bare oxygens, then five waters; positions in Å."""
    corner = phosphate.positions[rng.choice(_bare_oxygens(phosphate))]
    phosphorus = phosphate.positions[phosphate.numbers == 15][0]
    along = (corner - phosphorus) / np.linalg.norm(corner - phosphorus)
    tilt = np.radians(180.0 - P_O_MG)
    sites = (corner + TO_PHOSPHATE * (np.cos(tilt) * along + np.sin(tilt) * _across(along, rng)) for _ in range(40))
    mg = max(sites, key=lambda site: np.sort(np.linalg.norm(phosphate.positions - site, axis=1))[1])
    axis = (corner - mg) / TO_PHOSPHATE
    side = _across(axis, rng)
    third = np.cross(axis, side)
    built = phosphate + Atoms("Mg", [mg])
    for outward in (-axis, side, -side, third, -third):
        built += _bound_water(water, mg, outward, rng)
    return built


def _bare_oxygens(phosphate: Atoms) -> list[int]:
    """Oxygens bound to phosphorus alone: no hydrogen and no carbon is near."""
    bound = phosphate.positions[np.isin(phosphate.numbers, (1, 6))]
    oxygens = np.flatnonzero(phosphate.numbers == 8)
    return [k for k in oxygens if np.linalg.norm(bound - phosphate.positions[k], axis=1).min() > 1.6]


def _across(axis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random unit vector at right angles to ``axis``."""
    drawn = rng.normal(size=3)
    drawn -= drawn @ axis * axis
    return drawn / np.linalg.norm(drawn)


def _bound_water(water: Atoms, mg: np.ndarray, outward: np.ndarray, rng: np.random.Generator) -> Atoms:
    """A water on ``mg`` in the direction ``outward``, hydrogens away from the ion, turned at random about the bond."""
    one = water.copy()
    oxygen = one.positions[one.numbers == 8][0]
    hydrogens = one.positions[one.numbers == 1] - oxygen
    one.positions -= oxygen
    one.rotate(hydrogens.sum(axis=0), outward)
    one.rotate(rng.uniform(0.0, 360.0), outward)
    one.positions += mg + TO_WATER * outward
    return one


def droplet(name: str, split: str, rng: np.random.Generator) -> Atoms:
    """The octahedron among more waters, with charge and spin."""
    acid, water = piece(PHOSPHATES[split][name], int(rng.integers(2**31))), piece("O", 1)
    inside = octahedron(acid.atoms, water.atoms, rng)
    partial = np.concatenate([acid.partial, [2.0], *[water.partial] * 5])
    atoms = place([Piece(inside, acid.charge + 2, partial), *[water] * AROUND], rng)
    atoms.info |= {"config_type": "ion-phosphate", "molecule": f"mg {name}", "split": split, "system": ""}
    return atoms


def shell(frame: Atoms, waters: int) -> Atoms:
    """The phosphate, Mg and the ``waters`` whose oxygens are nearest to it. Waters follow Mg as O, H, H."""
    mg = int(np.flatnonzero(frame.numbers == 12)[0])
    oxygens = np.arange(mg + 1, len(frame), 3)
    nearest = np.argsort(frame.get_distances(mg, oxygens))[:waters]
    kept = [*range(mg + 1), *(int(oxygens[k]) + j for k in sorted(nearest) for j in range(3))]
    cut = frame[kept]
    cut.info = frame.info | {"system": f"{frame.info['molecule']} water*{waters}"}
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ubio-s3:wide@0.7")
    parser.add_argument("--head", default="wb97m-d3bj/def2-svp")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=PHOSPHATES, default="train")
    parser.add_argument("--runs", type=int, default=4, help="of each phosphate")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, calc, lists = np.random.default_rng(options.seed), OmniCalc(options.model, head=options.head), []
    for name in PHOSPHATES[options.split]:
        shells = []
        for k in range(options.runs):
            start = droplet(name, options.split, rng)
            start.calc = calc
            FIRE(start, logfile=None).run(fmax=0.5, steps=100)
            frames = run(start, calc, options.steps, options.every, KELVIN[k % 2], int(rng.integers(2**31)))
            shells += [shell(frame, waters=5 - n % 2) for n, frame in enumerate(frames)]
            print(f"{name}: {len(frames) * options.every} of {options.steps} steps, {len(start)} atoms", flush=True)
        lists.append([shells[int(n)] for n in rng.permutation(len(shells))])
    write_frames(options.out, in_turn(lists))
    print(f"{options.out}: {sum(map(len, lists))} frames")


if __name__ == "__main__":
    main()
