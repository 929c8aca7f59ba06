"""Mg2+ with its octahedron of six waters, or of five and one oxygen of a phosphate as in RNA, to be labelled.

    python -m analysis.curriculum.mg_shells --out mg-shells.xyz
    python -m analysis.curriculum.mg_shells --ligands water --waters 8 9 10 --out mg-second-shells.xyz
    omnicalc label mg-shells.xyz mg-second-shells.xyz --grid 2 --convergence 1e-7 --out mg-shells-dft.extxyz

In clusters grown in the gas phase a phosphate takes Mg between two of its oxygens and most waters stay outside, so the
octahedron is built, and more waters around. From there a trained potential's own dynamics, at alternating temperatures;
of its frames the ion, the phosphate and the waters nearest to the ion are kept, wherever these have gone: second-shell
waters pull those of the first by some 0.2 eV/Å towards the ion, which clusters without them do not say. Sizes alternate
in the file, so that any beginning of it is a fair part.
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
WATER = "water"  # in place of a phosphate: a sixth water
TO_PHOSPHATE, TO_WATER, P_O_MG = 2.05, 2.10, 148.0  # Å, Å, degrees: Mg in RNA
AROUND = 7  # waters beyond the first shell
KELVIN = (300.0, 400.0)


def octahedron(phosphate: Atoms | None, water: Atoms, rng: np.random.Generator) -> Atoms:
    """``phosphate``, then Mg at one of its bare oxygens, then five waters; without phosphate Mg and six waters. Å."""
    if phosphate is None:
        built, axis = Atoms("Mg", [np.zeros(3)]), _turned(rng)
        corners = [axis, -axis]
    else:
        mg, axis = _site(phosphate, rng)
        built, corners = phosphate + Atoms("Mg", [mg]), [-axis]
    mg, side = built.positions[-1].copy(), _across(axis, rng)
    third = np.cross(axis, side)
    for outward in (*corners, side, -side, third, -third):
        built += _bound_water(water, mg, outward, rng)
    return built


def _site(phosphate: Atoms, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where Mg stands at a bare oxygen of ``phosphate``, far from its other atoms, and the direction to that oxygen."""
    corner = phosphate.positions[rng.choice(_bare_oxygens(phosphate))]
    phosphorus = phosphate.positions[phosphate.numbers == 15][0]
    along = (corner - phosphorus) / np.linalg.norm(corner - phosphorus)
    tilt = np.radians(180.0 - P_O_MG)
    sites = (corner + TO_PHOSPHATE * (np.cos(tilt) * along + np.sin(tilt) * _across(along, rng)) for _ in range(40))
    mg = max(sites, key=lambda site: np.sort(np.linalg.norm(phosphate.positions - site, axis=1))[1])
    return mg, (corner - mg) / TO_PHOSPHATE


def _bare_oxygens(phosphate: Atoms) -> list[int]:
    """Oxygens bound to phosphorus alone: no hydrogen and no carbon is near."""
    bound = phosphate.positions[np.isin(phosphate.numbers, (1, 6))]
    oxygens = np.flatnonzero(phosphate.numbers == 8)
    return [k for k in oxygens if np.linalg.norm(bound - phosphate.positions[k], axis=1).min() > 1.6]


def _turned(rng: np.random.Generator) -> np.ndarray:
    """A random unit vector."""
    drawn = rng.normal(size=3)
    return drawn / np.linalg.norm(drawn)


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
    """The octahedron at the phosphate ``name``, or of waters alone, among more waters, with charge and spin."""
    water = piece("O", 1)
    acid = None if name == WATER else piece(PHOSPHATES[split][name], int(rng.integers(2**31)))
    inside = octahedron(acid and acid.atoms, water.atoms, rng)
    charges = [2.0] if acid is None else [*acid.partial, 2.0]
    bound = (len(inside) - len(charges)) // 3
    partial = np.concatenate([charges, *[water.partial] * bound])
    atoms = place([Piece(inside, 2 + (acid.charge if acid else 0), partial), *[water] * AROUND], rng)
    kind, molecule = ("ion", "mg") if acid is None else ("ion-phosphate", f"mg {name}")
    atoms.info |= {"config_type": kind, "molecule": molecule, "split": split, "system": ""}
    return atoms


def shell(frame: Atoms, waters: int) -> Atoms:
    """The phosphate if any, Mg and the ``waters`` whose oxygens are nearest to it. Waters follow Mg as O, H, H."""
    mg = int(np.flatnonzero(frame.numbers == 12)[0])
    oxygens = np.arange(mg + 1, len(frame), 3)
    nearest = np.argsort(frame.get_distances(mg, oxygens))[:waters]
    kept = [*range(mg + 1), *(int(oxygens[k]) + j for k in sorted(nearest) for j in range(3))]
    cut = frame[kept]
    cut.info = frame.info | {"system": f"{frame.info['molecule']} water*{waters}"}
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ubio-s3:wide")
    parser.add_argument("--head", default="wb97m-d3bj/def2-svp")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=PHOSPHATES, default="train")
    parser.add_argument("--ligands", nargs="+", help=f"phosphates of the split (all), or {WATER}")
    parser.add_argument("--waters", nargs="+", type=int, default=[5, 4], help="kept, one count after the other")
    parser.add_argument("--runs", type=int, default=4, help="of each ligand")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    known = [*PHOSPHATES[options.split], WATER]
    names = options.ligands or known[:-1]
    if unknown := set(names) - set(known):
        parser.error(
            f"--ligands: {', '.join(sorted(unknown))}; allowed with --split {options.split}: {', '.join(known)}"
        )
    if not all(1 <= n <= 5 + AROUND for n in options.waters):
        parser.error(f"--waters: 1 to {5 + AROUND}, so many has every droplet")
    rng, calc, lists = np.random.default_rng(options.seed), OmniCalc(options.model, head=options.head), []
    for name in names:
        shells = []
        for k in range(options.runs):
            start = droplet(name, options.split, rng)
            start.calc = calc
            FIRE(start, logfile=None).run(fmax=0.5, steps=100)
            frames = run(start, calc, options.steps, options.every, KELVIN[k % 2], int(rng.integers(2**31)))
            counts = options.waters * len(frames)
            shells += [shell(frame, waters) for frame, waters in zip(frames, counts, strict=False)]
            print(f"{name}: {len(frames) * options.every} of {options.steps} steps, {len(start)} atoms", flush=True)
        lists.append([shells[int(n)] for n in rng.permutation(len(shells))])
    write_frames(options.out, in_turn(lists))
    print(f"{options.out}: {sum(map(len, lists))} frames")


if __name__ == "__main__":
    main()
