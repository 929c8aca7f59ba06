"""Clusters of one to six waters as path integrals sample them, to be labelled by DFT.

    python -m analysis.water.quantum_clusters --out clusters.xyz
    omnicalc label clusters.xyz --method pbe0/def2-tzvp --out water-quantum-pbe0.extxyz

The nearest molecules around one of the example's liquid run by ``ubio-s3:wide@0.7`` (head pbe0-ts) for 1.5 ps at 300 K
with 32 beads, without a box; frames of one bead are drawn from it, those of the first 0.12 ps left out. Sizes alternate
in the file, so that any beginning of it is a fair part. Four minutes of one core; an interrupted command goes on.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from analysis.water.teacher import TEACHER, WATER, simulate
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.data.subset import in_turn, write_frames
from omnicalc.md.molecules import molecules_of

FRAMES = {1: 24, 2: 48, 3: 44, 4: 24, 6: 8}  # molecules: frames
FIRST = 8  # frame, every 15 fs


def cluster(box: Atoms, size: int, rng: np.random.Generator) -> Atoms:
    """A random molecule of the box and its nearest, each whole."""
    found = molecules_of(box)
    whole = box.positions + found.images @ box.cell.array
    oxygen = np.flatnonzero(box.numbers == 8)
    centre = whole[rng.choice(oxygen)]
    away = whole[oxygen] - centre
    images = np.round(away @ np.linalg.inv(box.cell.array)) @ box.cell.array
    nearest = np.argsort(np.linalg.norm(away - images, axis=1))[:size]
    picked = Atoms()
    for k in nearest:
        members = np.flatnonzero(found.molecule == found.molecule[oxygen[k]])
        picked += Atoms(box.numbers[members], positions=whole[members] - images[k] - centre)
    return picked


def run(start: Atoms, folder: Path, seed: int) -> None:
    box = folder.with_suffix(".xyz")
    if not box.exists():
        write_frames(box, [start])
    first = f"--no-pbc --model {TEACHER} --head pbe0-ts --beads 32 --interval 30 --seed {seed}"
    simulate(box, folder, "--steps 3000 --guard bond=warn", first)


def drawn(folder: Path, size: int, count: int, rng: np.random.Generator) -> list[Atoms]:
    trajectory = open_trajectory(folder / "traj.dcd")
    chosen = set(rng.choice(np.arange(FIRST, trajectory.n_frames), count, replace=False).tolist())
    frames = []
    for shown in trajectory.frames(range(trajectory.n_frames)):
        if shown.index in chosen:
            frame = Atoms(trajectory.elements, positions=shown.positions)
            frame.info = {"charge": 0, "spin": 1, "config_type": "water", "system": f"water*{size}", "origin": "pi300"}
            frames.append(frame)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("quantum_clusters"), help="folder of the runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    rng, box, lists = np.random.default_rng(5), read(WATER), []
    for size, count in FRAMES.items():
        folder = options.runs / f"water{size}"
        run(cluster(box, size, rng), folder, seed=size)
        lists.append(drawn(folder, size, count, rng))
    write_frames(options.out, in_turn(lists))
    print(f"{options.out}: {sum(map(len, lists))} frames")


if __name__ == "__main__":
    main()
