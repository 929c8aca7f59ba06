"""Fifty frames of ethanol to fine-tune on, and three hundred others to test on, from one file of labelled frames.

python -m analysis.fine_tuning.ethanol ethanol_methanol_train.extxyz.gz --out FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from omnicalc.data.readers import open_frames

FORMULA, TUNED, TESTED, SEED = "C2H6O", 50, 300, 0


def choose(frames: list[Atoms]) -> tuple[list[Atoms], list[Atoms]]:
    """Frames to tune on and to test on: ethanol alone, at random, without the splits that the file knows."""
    ethanol = [a for a in frames if a.get_chemical_formula() == FORMULA]
    order = np.random.default_rng(SEED).permutation(len(ethanol))[: TUNED + TESTED]
    for k in order:
        ethanol[k].info = {}
    chosen = [ethanol[k] for k in order]
    return chosen[:TUNED], chosen[TUNED:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    given = parser.parse_args()
    frames = open_frames(given.file)
    parts = choose([frames[k] for k in range(len(frames))])
    given.out.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("ethanol50", "ethanol_test"), parts, strict=True):
        write(given.out / f"{name}.extxyz", part)
        print(f"{given.out / name}.extxyz: {len(part)} frames")


if __name__ == "__main__":
    main()
