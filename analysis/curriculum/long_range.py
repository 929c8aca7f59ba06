"""Is long range worth its cost? The third stage's network trained on with and without it, on the same data.

    python -m analysis.curriculum.long_range --data DATA --out OUT
    python -m analysis.curriculum.ion_pairs OUT/local/weights OUT/long/weights --head wb97m-d3bj/def2-svp \\
        --data data/ion-pairs --out OUT/ions

Both begin at ``ubio-s3:wide`` and see the data of its recipe; ``long`` has one block of attention to fragments (heavy
atoms with their hydrogens) within 12 Å, which begins at nothing. Stopped trainings go on with the same command.
"""

from dataclasses import replace
from pathlib import Path

import click

from analysis.common.trainings import weights_of
from omnicalc.training.recipe import Recipe, Stage, find_recipe, read_recipe

LONG = {"long_layers": 1, "long_sources": "fragments", "long_upper": 12.0, "long_merge": "added"}


def recipe_of(base: Recipe, long: bool, steps: int) -> Recipe:
    """Of one of the two trainings."""
    stage = Stage(steps, learning_rate=base.stages[-1].learning_rate, energy_weight=2.0, energy_weight_late=10.0)
    changed = {"model": base.model | (LONG if long else {}), "tag": "long" if long else "local"}
    optimiser = replace(base.optimiser, validate_every=max(1, steps // 4))
    return replace(base, start="ubio-s3:wide", copy_heads={}, stages=(stage,), optimiser=optimiser, **changed)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Files of the recipe ubio-s3-wide.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=click.IntRange(min=1), default=6000, show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
def main(data, out, steps, threads):
    """Two trainings, with and without long range."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    base = read_recipe(find_recipe("ubio-s3-wide"))
    for long in (False, True):
        recipe = recipe_of(base, long, steps)
        click.echo(f"{recipe.tag}: {weights_of(recipe, data, out / recipe.tag)}")


if __name__ == "__main__":
    main()
