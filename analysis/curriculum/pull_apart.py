"""Do ions let go of each other as they should? Forces on a pair at growing distances in a droplet, beside GFN2-xTB.

    python -m analysis.curriculum.pull_apart ubio-s2 ubio-s3:wide --pair "na cl" --waters 20

A network that sees a few Å has to give up a pair's attraction within them; one that never saw a pair half apart does it
in a wall. Each droplet is built anew, with the pair held at its distance, and relaxed for some steps by GFN2-xTB.
"""

from pathlib import Path

import click
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from analysis.common.trainings import write_rows
from omnicalc import OmniCalc
from omnicalc.data.build.composition import composition
from omnicalc.data.build.geometry import piece
from omnicalc.data.build.placing import place_apart
from omnicalc.data.build.recipe import read_recipe
from omnicalc.data.build.walled import WalledXtb
from omnicalc.data.labels.xtb import Xtb

HEAD = "gfn2-xtb"
DISTANCES = (2.6, 3.0, 3.4, 3.6, 3.8, 4.0, 4.1, 4.2, 4.3, 4.4, 4.6, 5.0, 5.5, 6.0)  # Å
RELAXED = 20  # steps


def droplet(system: str, distance: float, seed: int) -> Atoms:
    """``system`` (components of the recipe ubio-apart) with its first two pieces ``distance`` Å apart; labelled, with
    the indices of the pair in ``info["pair"]``.
    """
    from ase.optimize import FIRE

    rng = np.random.default_rng(seed)
    recipe = read_recipe("ubio-apart")
    atoms = place_apart([piece(s, int(rng.integers(2**31))) for s in composition(system, recipe)], distance, rng)
    pair = [int(k) for k in atoms.constraints[0].pairs[0]]
    atoms.calc = WalledXtb.around(atoms)
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.02, steps=RELAXED)
    found = Atoms(atoms.numbers, atoms.positions, info=dict(atoms.info) | {"pair": pair})
    label = Xtb()(found)
    found.calc = SinglePointCalculator(found, energy=label.energy, forces=label.forces)
    return found


def pair_error(calc, atoms: Atoms) -> float:
    """Largest error of a force component on the two of the pair, eV/Å."""
    again = Atoms(atoms.numbers, atoms.positions, info=dict(atoms.info), calculator=calc)
    return float(np.abs(again.get_forces() - atoms.get_forces())[atoms.info["pair"]].max())


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--pair", default="na cl", show_default=True, help="Two components of the recipe ubio-apart.")
@click.option("--waters", default=20, show_default=True, type=click.IntRange(min=0))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Droplets at each distance.")
@click.option("--head", default=HEAD, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="CSV file of all errors.")
def main(models, pair, waters, seeds, head, out):
    """Mean over droplets of the largest error on the pair, eV/Å, for each of MODELS."""
    calcs = [OmniCalc(model, head=head) for model in models]
    rows = []
    click.echo(f"{'Å':>6}" + "".join(f"  {model[-24:]:>24}" for model in models))
    for distance in DISTANCES:
        drops = [droplet(f"{pair} water*{waters}" if waters else pair, distance, seed) for seed in range(seeds)]
        errors = [[pair_error(calc, drop) for drop in drops] for calc in calcs]
        rows += [
            {"model": model, "pair": pair, "waters": waters, "distance": distance, "seed": seed, "error": error}
            for model, found in zip(models, errors, strict=True)
            for seed, error in enumerate(found)
        ]
        click.echo(f"{distance:6.2f}" + "".join(f"  {np.mean(found):24.2f}" for found in errors))
    if out is not None:
        write_rows(out, rows)


if __name__ == "__main__":
    main()
