"""Structures from a potential's own dynamics, to be labelled and learned from: where it goes that its data did not.

    python -m analysis.curriculum.own_dynamics data/ubio-xtb.extxyz.gz --model ubio-s2 --out own.xyz
    omnicalc label own.xyz --method gfn2-xtb --out ubio-own.extxyz
    python -m analysis.curriculum.own_dynamics data/ubio-xtb.extxyz.gz --model ubio-s2 --split test --kelvin 500 \
        --steps 4000 --out unseen.xyz

Each system of a split starts from one of its frames of dynamics at 300 K and runs by Langevin dynamics; every 25th
step is kept, until the run ends or comes apart (a force above 30 eV/Å; that frame is not kept). Frames carry the keys
of the file they come from, with ``origin=own400`` by the temperature. With unseen molecules the lines printed say how
far the potential can be trusted to hold a molecule together.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from omnicalc import OmniCalc
from omnicalc.data.readers import open_frames

STEP_FS, EVERY = 0.5, 25
TOO_STRONG = 30.0  # eV/Å
KEPT_KEYS = ("charge", "spin", "config_type", "molecule", "system", "split")


def starts(path: Path, split: str, seed: int) -> list[Atoms]:
    """One frame of dynamics at 300 K of every system of the split, in an order that the seed decides."""
    rng, by_system = random.Random(seed), {}
    for atoms in open_frames(path):
        if atoms.info["split"] == split and atoms.info["origin"] == "md300":
            by_system.setdefault(atoms.info["system"], []).append(atoms)
    chosen = [rng.choice(frames) for _, frames in sorted(by_system.items())]
    rng.shuffle(chosen)
    return chosen


def run(start: Atoms, calc: OmniCalc, steps: int, every: int, kelvin: float, seed: int) -> list[Atoms]:
    """Frames of one run, without labels."""
    atoms = start.copy()
    atoms.calc = calc
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
    dynamics = Langevin(atoms, STEP_FS * units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng, fixcm=False)
    kept = []
    for _ in range(steps // every):
        dynamics.run(every)
        if not np.abs(atoms.get_forces()).max() < TOO_STRONG:
            break
        frame = Atoms(atoms.numbers, atoms.positions)
        frame.info = {key: start.info[key] for key in KEPT_KEYS} | {"origin": f"own{kelvin:.0f}"}
        kept.append(frame)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="labelled file with the keys of data/ubio-xtb.extxyz.gz")
    parser.add_argument("--model", default="ubio-s2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--kelvin", type=float, default=400.0)
    parser.add_argument("--systems", type=int, help="run only so many of them")
    parser.add_argument("--element", help="run only systems with this element, as in Mg")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = starts(options.data, options.split, options.seed)
    if not chosen:
        parser.error(f"{options.data} has no frame of dynamics at 300 K (origin=md300) with split={options.split}")
    if options.element:
        chosen = [a for a in chosen if options.element in a.get_chemical_symbols()]
    calc, frames, whole = OmniCalc(options.model, head="gfn2-xtb"), [], 0
    for k, start in enumerate(chosen[: options.systems]):
        kept = run(start, calc, options.steps, EVERY, options.kelvin, options.seed + k)
        whole += len(kept) == options.steps // EVERY
        frames += kept
        print(f"{start.info['system']}: {len(kept) * EVERY} of {options.steps} steps, {len(start)} atoms", flush=True)
    write(options.out, frames, format="extxyz")
    print(f"wrote {len(frames)} frames to {options.out}; {whole} runs stayed whole")


if __name__ == "__main__":
    main()
