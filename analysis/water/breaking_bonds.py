"""Clusters of waters from dynamics in which a bond breaks or two hydrogens meet, to be labelled by DFT.

    python -m analysis.water.breaking_bonds ubio-s3:small@0.2 ubio-s3:fast@0.2 --out clusters.xyz
    omnicalc label clusters.xyz --method pbe0/def2-tzvp --out water-breaking-pbe0.extxyz

The quantum thermal bath takes O-H bonds further than path integrals do, heat takes hydrogens nearer to each other, and
where weights have seen neither a proton leaves. Each model runs the example's liquid in the bath at 300 K and hot,
head pbe0-ts, several seeds, until the guard of bonds stops it; of the frames with the longest bond or the nearest
hydrogens of two molecules, those molecules and the nearest ones are kept, each whole as it was at the start, so that
clusters are neutral wherever the proton is. An interrupted command goes on.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from analysis.water.teacher import WATER, simulate
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.data.subset import in_turn, write_frames

RUNS = {"qtb300": "--thermostat qtb --temperature 300 --steps 6000", "hot600": "--temperature 600 --steps 10000"}
SEEDS = {"qtb300": 6, "hot600": 2}
LONG, CLOSE = 1.25, 1.30  # Å: O-H of a molecule, H-H of two
SIZES = (2, 4, 3)  # molecules, one after the other
FRAMES = 10  # of a run and kind of event


def nearest_image(vectors: np.ndarray, atoms: Atoms) -> np.ndarray:
    """``vectors`` (Å) by the shortest way through the orthorhombic box of ``atoms``."""
    edges = atoms.cell.lengths()
    return vectors - edges * np.round(vectors / edges)


def events(atoms: Atoms) -> dict[str, tuple[float, int]]:
    """How far the frame goes (Å) and at which hydrogen. Molecules are O, H, H in the order of the file."""
    hydrogens = np.flatnonzero(atoms.numbers == 1)
    apart = np.linalg.norm(nearest_image(atoms.positions[:, None] - atoms.positions, atoms), axis=-1)
    bonds = apart[hydrogens, hydrogens // 3 * 3]
    between = apart[np.ix_(hydrogens, hydrogens)]
    between[hydrogens[:, None] // 3 == hydrogens[None] // 3] = np.inf
    return {
        "long": (float(bonds.max()), int(hydrogens[bonds.argmax()])),
        "close": (float(between.min()), int(hydrogens[between.min(axis=1).argmin()])),
    }


def cluster(atoms: Atoms, hydrogen: int, molecules: int) -> Atoms:
    """The molecule of ``hydrogen``, in the middle, and those with an atom nearest to it, each whole."""
    oxygens = np.repeat(atoms.positions[::3], 3, axis=0)
    placed = nearest_image(oxygens - atoms.positions[hydrogen], atoms) + nearest_image(atoms.positions - oxygens, atoms)
    away = np.linalg.norm(placed, axis=1).reshape(-1, 3).min(axis=1)
    kept = (3 * np.argsort(away)[:molecules, None] + np.arange(3)).ravel()
    return Atoms(atoms.numbers[kept], positions=placed[kept])


def drawn(folder: Path, model: str, rng: np.random.Generator) -> list[Atoms]:
    """Clusters of the run's frames that go furthest, ten of each kind at most, of alternating sizes."""
    box, trajectory = read(WATER), open_trajectory(folder / "traj.dcd")
    found: dict[str, list] = {"long": [], "close": []}
    for shown in trajectory.frames(range(trajectory.n_frames)):
        frame = Atoms(trajectory.elements, positions=shown.positions, cell=box.cell, pbc=True)
        for kind, (value, hydrogen) in events(frame).items():
            if (value > LONG) if kind == "long" else (value < CLOSE):
                found[kind].append((frame, hydrogen))
    clusters = []
    for kind, of_kind in found.items():
        chosen = rng.permutation(len(of_kind))[:FRAMES]
        for turn, k in enumerate(sorted(chosen)):
            size = SIZES[turn % len(SIZES)]
            picked = cluster(*of_kind[k], size)
            picked.info = {"charge": 0, "spin": 1, "config_type": "water", "system": f"water*{size}"}
            picked.info |= {"origin": folder.name.split("-")[0], "event": kind, "model": model}
            clusters.append(picked)
    return clusters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("breaking_bonds"), help="folder of the runs")
    options = parser.parse_args()
    rng, lists = np.random.default_rng(6), []
    for model in options.models:
        for kind, words in RUNS.items():
            for seed in range(1, SEEDS[kind] + 1):
                folder = options.runs / f"{kind}-{model.replace(':', '-').replace('/', '-')}-{seed}"
                folder.parent.mkdir(parents=True, exist_ok=True)
                simulate(WATER, folder, words, f"--model {model} --head pbe0-ts --interval 5 --seed {seed}")
                lists.append(drawn(folder, model, rng))
    write_frames(options.out, in_turn(lists))
    print(f"{options.out}: {sum(map(len, lists))} frames")


if __name__ == "__main__":
    main()
