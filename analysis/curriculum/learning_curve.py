"""What more labels of one kind would give: the network of a recipe, from scratch, on ever more of them.

    python -m analysis.curriculum.learning_curve ubio-s2-small --source ubio-xtb --data data --out curve
    python -m analysis.curriculum.learning_curve ubio-s3-wide --source ubio-dft --data data --out scratch \\
        --frames 45 --beside ubio-s3:wide --steps 3000

One source of the recipe alone is trained on, from random weights, for the same number of steps whatever the number of
frames; the weights with the best validation are judged on the source's test frames, whose molecules no training saw.
``--beside`` judges finished weights on the same frames, so that it can be told what their other data were worth.
Writes ``learning_curve.csv`` and ``learning_curve.png``. Finished trainings are kept, unfinished ones go on.
"""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from analysis.common.figures import new_figure, save_figure
from analysis.common.trainings import train, validations, write_rows
from omnicalc.errors import InputError
from omnicalc.training.recipe import Recipe, find_recipe, read_recipe

ALL = "all"
DYNAMICS = ("md300", "md400", "md500")  # origins of frames


def case_recipe(
    base: Recipe, source: str, frames: int | None, steps: int, learning_rate: float | None, matrices: str | None = None
) -> Recipe:
    """The model of ``base`` from scratch, on ``frames`` training frames of one of its sources (None: all).

    ``learning_rate`` and ``matrices`` (the optimiser for them) are those of ``base`` where None is given. One stage,
    with the weights of the last stage of ``base``. Raises InputError for a source that it does not have.
    """
    there = [s for s in base.data if s.label == source]
    if not there:
        raise InputError(f"--source {source}: the sources of the recipe are {', '.join(s.label for s in base.data)}")
    last = base.stages[-1]
    stage = replace(
        last, steps=steps, warmup=max(1, min(300, steps // 10)), decay_steps=None, mixture=None,
        learning_rate=learning_rate or last.learning_rate,
    )  # fmt: skip
    every = max(1, steps // 8)
    optimiser = replace(
        base.optimiser, validate_every=every, checkpoint_every=every, validate_frames=None,
        matrices=matrices or base.optimiser.matrices,
    )  # fmt: skip
    head = there[0].head
    return replace(
        base, tag=f"scratch-{frames or ALL}", start="", copy_heads={}, kept_heads=(), stages=(stage,),
        optimiser=optimiser, data=(replace(there[0], limit=frames, weight=1.0, replay=0),),
        references={h: r for h, r in base.references.items() if h == head},
    )  # fmt: skip


def test_errors(weights, head: str, frames: list) -> dict[str, float]:
    """Force MAE (meV/Å), of all frames and of those of dynamics at 300 to 500 K, and relative energies (meV/atom)."""
    from omnicalc import load_potential
    from omnicalc.evaluation import evaluate

    found = evaluate(load_potential(weights), frames, head=head)
    dynamics = [c for c in found.frames if c.atoms.info.get("origin") in DYNAMICS]
    errors = found.errors()
    values = {
        "forces": errors.force_mae,
        "forces_of_dynamics": found.errors(dynamics).force_mae if dynamics else float("nan"),
        "relative_energy": errors.relative_energy_mae,
    }
    return {key: round(value, 3) for key, value in values.items()}


def test_frames(recipe: Recipe, data: Path) -> list:
    """Frames of the source's file with ``split=test``."""
    from omnicalc.data.readers import open_frames
    from omnicalc.evaluation import labelled_frames

    source = recipe.data[0]
    if not source.file:
        raise InputError(f"source {source.label} is a pattern of shards; a source with one file is needed")
    path = data / source.file
    return labelled_frames(list(open_frames(path)), "test", str(path))


def draw(file: Path, rows: list[dict], beside: list[dict]) -> None:
    """Errors against the number of training frames, both logarithmic; finished weights as level lines."""
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = new_figure(5.2, 3.8)
    axis = figure.subplots()
    for key, name, colour in (("forces", "all test frames", "C0"), ("forces_of_dynamics", "dynamics alone", "C1")):
        values = [row[key] for row in rows]
        if np.isfinite(values).all():
            axis.plot([row["frames"] for row in rows], values, "o-", color=colour, label=f"from scratch, {name}")
    for row, dashes in zip(beside, ("--", ":", "-."), strict=False):
        name = f"{row['weights']}, all test frames"
        axis.axhline(row["forces"], linestyle=dashes, color="0.3", linewidth=1.0, label=name)
    axis.set(xscale="log", yscale="log", xlabel="training frames", ylabel="force MAE on test frames (meV/Å)")
    axis.xaxis.set_major_locator(FixedLocator([row["frames"] for row in rows]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(ScalarFormatter())
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, file)


@click.command()
@click.argument("recipe")
@click.option("--source", required=True, help="Of the recipe, the only one to train on.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--frames",
    multiple=True,
    type=click.IntRange(min=2),
    default=(500, 2000),
    show_default=True,
    help="Training frames, besides all of them.",
)
@click.option("--steps", type=click.IntRange(min=1), default=8000, show_default=True, help="Of every training.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Learning rate. [default: the recipe's last]")
@click.option("--matrices", type=click.Choice(["adam", "muon"]), help="Optimiser for them. [default: the recipe's]")
@click.option("--beside", multiple=True, metavar="MODEL", help="Weights to judge on the same frames.")
def main(recipe, source, data, out, frames, steps, rate, matrices, beside):
    """From scratch on part of one source of RECIPE, and on all of it."""
    base, rows = read_recipe(find_recipe(recipe)), []
    whole = case_recipe(base, source, None, steps, rate, matrices)
    head, tested, total = whole.data[0].head, test_frames(whole, data), _training_frames(whole, data)
    for number in (*sorted(frames), None):
        case = case_recipe(base, source, number, steps, rate, matrices)
        folder = out / case.tag
        if not any(int(row["step"]) == steps for row in validations(folder)):
            train(case, data, folder)
        used = min(number or total, total)
        rows.append({"weights": "from scratch", "frames": used} | test_errors(folder / "best", head, tested))
    judged = [{"weights": name, "frames": ""} | test_errors(name, head, tested) for name in beside]
    write_rows(out / "learning_curve.csv", rows + judged)
    draw(out / "learning_curve.png", rows, judged)
    for row in rows + judged:
        click.echo(
            f"{row['weights']:<16}{row['frames']!s:>6} frames: forces {row['forces']:.1f} meV/Å (dynamics "
            f"{row['forces_of_dynamics']:.1f}), relative energies {row['relative_energy']:.2f} meV/atom"
        )


def _training_frames(case: Recipe, data: Path) -> int:
    """How many frames there are to train on."""
    from omnicalc.training.dataset import build_dataset

    cutoff = case.model["cutoff"]
    return len(build_dataset(case, data, cutoff, report=lambda line: None).sources[0].train)


if __name__ == "__main__":
    main()
