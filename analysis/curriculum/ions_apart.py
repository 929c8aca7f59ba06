"""Ions and a water alone, and pairs of them from near to far: structures to be labelled.

    python -m analysis.curriculum.ions_apart --out ions-apart.xyz
    omnicalc label ions-apart.xyz --method gfn2-xtb --out ions-apart-xtb.extxyz

The curriculum's own structures are droplets, whose ions are never alone and never far from what they are bound to. A
potential that saw only these gives no energy of hydration or of binding: that needs the parts by themselves.
"""

from itertools import combinations_with_replacement
from pathlib import Path

import click
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import write
from scipy.spatial.transform import Rotation

from omnicalc.errors import InputError
from omnicalc.files import write_atomically

CHARGES = {"Na": 1, "K": 1, "Mg": 2, "Cl": -1}
NEAREST = {"Na": 2.1, "K": 2.4, "Mg": 1.9, "Cl": 2.8}  # Å to a water oxygen; Cl: less the hydrogen between
FARTHEST = 12.0  # Å
MOST_CHARGE = 2  # that the potentials know


def frames(per_pair: int, seed: int) -> list[Atoms]:
    """Ions and a water alone, and pairs at ``per_pair`` distances, denser where near; a tenth of them to validate."""
    rng = np.random.default_rng(seed)
    found = [_named(Atoms(symbol), [symbol], "train") for symbol in CHARGES]
    found.append(_named(molecule("H2O"), ["water"], "valid"))
    for one, other in combinations_with_replacement(CHARGES, 2):
        if abs(CHARGES[one] + CHARGES[other]) <= MOST_CHARGE:
            near = NEAREST[one] + NEAREST[other] - 2.3 if CHARGES[one] * CHARGES[other] < 0 else 3.0
            for k, distance in enumerate(_distances(near, per_pair)):
                found.append(_named(Atoms(one + other, [[0, 0, 0], [distance, 0, 0]]), [one, other], _split(k)))
    for symbol in CHARGES:
        for k, distance in enumerate(_distances(NEAREST[symbol], per_pair)):
            water = molecule("H2O")
            water.positions -= water.positions[0]
            water.positions = water.positions @ Rotation.random(random_state=rng).as_matrix()
            found.append(_named(water + Atoms(symbol, [[distance, 0, 0]]), [symbol, "water"], _split(k)))
    return found


def _distances(near: float, count: int) -> np.ndarray:
    return 1 / np.linspace(1 / near, 1 / FARTHEST, count)


def _split(k: int) -> str:
    return "valid" if k % 10 == 5 else "train"


def _named(atoms: Atoms, pieces: list[str], split: str) -> Atoms:
    name = " ".join(pieces).lower()
    charge = sum(CHARGES.get(p, 0) for p in pieces)
    kind = "ions-apart" if len(pieces) > 1 else "alone"
    atoms.info = {"charge": charge, "spin": 1, "config_type": kind, "origin": "scan", "system": name,
                  "molecule": name, "split": split}  # fmt: skip
    return atoms


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File, .xyz.")
@click.option("--per-pair", default=30, show_default=True, type=click.IntRange(min=2))
@click.option("--seed", default=0, show_default=True, help="Of the waters' orientations.")
def main(out, per_pair, seed):
    """Ions alone, pairs of ions, and ions with a water."""
    if out.suffix != ".xyz":
        raise InputError(f"'{out}' given; a name that ends in .xyz is needed")
    made = frames(per_pair, seed)
    write_atomically(out, lambda temporary: write(temporary, made, format="extxyz"))
    click.echo(f"{len(made)} frames: {out}")


if __name__ == "__main__":
    main()
