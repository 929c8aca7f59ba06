"""Is long range worth its cost? The third stage's network trained on with and without it, on the same data.

    python -m analysis.curriculum.long_range --data DATA --out OUT
    python -m analysis.curriculum.ion_pairs OUT/local/weights OUT/long/weights --head wb97m-d3bj/def2-svp \\
        --data data/ion-pairs --out OUT/ions

Both begin at ``ubio-s3:wide`` and see the data of its recipe and the labels of ions apart; ``long`` has one block of
attention to fragments (heavy atoms with their hydrogens) within 12 Å, which begins at nothing. At the end both see ions
alone more often, since four frames among hundreds are seldom drawn. Stopped trainings go on with the same command.
"""

from dataclasses import replace
from pathlib import Path

import click

from analysis.common.trainings import weights_of
from omnicalc.training.recipe import DataSource, Recipe, Stage, find_recipe, read_recipe

LONG = {"long_layers": 1, "long_sources": "fragments", "long_upper": 12.0, "long_merge": "added"}
HEAD = "wb97m-d3bj/def2-svp"
IONS = DataSource(
    head=HEAD, level_of_theory="wB97M-D3(BJ)/def2-SVP (PySCF, density fitting, grid level 2)", licence="CC0-1.0",
    file="ions-apart-dft.extxyz.gz", sha256="fa50af2fd35c033d0a52969d9b4bf4ae7c03d1ac088894fb0314fad19f6f7018",
    name="ions-apart", split_note="every tenth distance", max_force=30.0, weight=0.06,
)  # fmt: skip
ALONE = replace(IONS, name="ions-alone", only={"config_type": "alone"}, weight=0.04)


def recipes(base: Recipe, long: bool, steps: tuple[int, int]) -> tuple[Recipe, Recipe]:
    """Of both trainings in turn; the second begins where its ``start`` will say."""
    model = base.model | (LONG if long else {})
    optimiser = replace(base.optimiser, validate_every=max(1, steps[0] // 4))
    common = {"model": model, "copy_heads": {}, "tag": "long" if long else "local", "version": "0.3",
              "start": "ubio-s3:wide@0.2", "optimiser": optimiser}  # fmt: skip
    first = Stage(steps[0], learning_rate=1.5e-3, energy_weight=2.0, energy_weight_late=10.0)
    second = replace(first, steps=steps[1], learning_rate=1e-3, warmup=min(100, steps[1]))
    ions = replace(base, data=(*base.data, IONS), stages=(first,), **common)
    return ions, replace(ions, data=(*ions.data, ALONE), stages=(second,))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True,
              help="Files of the recipe ubio-s3-wide, and ions-apart-dft.extxyz.gz.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=click.IntRange(min=1), nargs=2, default=(6000, 1500), show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
def main(data, out, steps, threads):  # fmt: skip
    """Two trainings, with and without long range: half an hour and an hour of one core."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    base = read_recipe(find_recipe("ubio-s3-wide"))
    for long in (False, True):
        first, second = recipes(base, long, steps)
        start = weights_of(first, data, out / f"{first.tag}-ions").resolve()
        click.echo(f"{second.tag}: {weights_of(replace(second, start=str(start)), data, out / second.tag)}")


if __name__ == "__main__":
    main()
