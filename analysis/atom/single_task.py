"""Does a decoder of many molecules know a molecule it never saw better than one trained on that molecule alone?

    python -m analysis.atom.single_task atom --data tg-mini --out OUT
    python -m analysis.atom.single_task atom --data tg-mini --out OUT --molecule toluene --steps 20

For every test molecule of MODEL's recipe, a fresh network of the same settings is trained on the first three quarters
of that molecule's frames. Both are judged on the last quarter, from the same starts, with baselines beside them: the
decoder of many molecules on a molecule it never saw (zero-shot), the other on later times of the one it knows.
Finished trainings are kept, unfinished ones go on where they stopped.
"""

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from analysis.common.trainings import finish, write_rows
from omnicalc.data.trajectories import Trajectory, read_folder
from omnicalc.decoding.baselines import MEAN_RIGID, RIGID
from omnicalc.decoding.evaluation import DECODER, HORIZONS, molecule_errors
from omnicalc.decoding.weights import load_decoder
from omnicalc.errors import InputError
from omnicalc.training.decoder.recipe import DecoderRecipe, decoder_recipe
from omnicalc.training.decoder.trainer import DecoderTrainer

SINGLE, MANY = "single task", "multitask, zero-shot"


def single_recipe(recipe: DecoderRecipe, molecule: str, steps: int) -> DecoderRecipe:
    """The recipe of many molecules turned to one, as long as ``steps`` says; what it does not see of it is judged."""
    every = max(1, steps // 4)
    return replace(recipe, molecules=(molecule,), validation=(molecule,), test=(), steps=steps,
                   warmup=min(recipe.warmup, every), validate_every=every)  # fmt: skip


def trained(recipe: DecoderRecipe, trajectory: Trajectory, out: Path):
    """The averaged network of one molecule, trained as far as it is not yet."""
    trainer = DecoderTrainer(recipe, [trajectory], [trajectory], out,
                             report=lambda line: click.echo(f"{out.name}: {line}"))  # fmt: skip
    finish(trainer, out)
    return trainer.averaged_model()


def compared(many, single, trajectory: Trajectory, part: float, starts: int) -> dict[str, np.ndarray]:
    """S2T at the horizons (Å^2) of both decoders and two baselines, from the same starts after ``part``."""
    judged = {"part": (part, 1.0), "starts": starts}
    first, second = (molecule_errors([model], trajectory, **judged) for model in (many, single))
    there = {name: first.s2t[name] for name in (RIGID, MEAN_RIGID)}
    return {MANY: first.s2t[DECODER], SINGLE: second.s2t[DECODER], **there}


def table(found: dict[str, dict[str, np.ndarray]]) -> list[dict]:
    """Rows: molecule, who, S2T at each horizon in 10^-2 Å^2; the mean over molecules last."""
    names = list(next(iter(found.values())))
    means = {"mean": {n: np.mean([errors[n] for errors in found.values()], 0) for n in names}}
    return [
        {"molecule": molecule, "decoder": name}
        | {f"{h:g} fs": round(100 * v, 3) for h, v in zip(HORIZONS, values, strict=True)}
        for molecule, errors in (found | means).items()
        for name, values in errors.items()
    ]


def verdict(found: dict[str, dict[str, np.ndarray]]) -> str:
    """On how many molecules, at each horizon, the decoder of many molecules has the lower error."""
    wins = np.sum([errors[MANY] < errors[SINGLE] for errors in found.values()], 0)
    return "multitask below single task on " + ", ".join(
        f"{n} of {len(found)} at {h:g} fs" for n, h in zip(wins, HORIZONS, strict=True)
    )


@click.command()
@click.argument("model")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--molecule", "only", multiple=True, help="Only this one; may be repeated. [default: the recipe's test]")
@click.option("--steps", type=click.IntRange(min=1), default=600, show_default=True, help="Of every training.")
@click.option("--starts", type=click.IntRange(min=1), default=24, show_default=True, help="Per molecule.")
@click.option("--threads", type=click.IntRange(min=1))
def main(model, data, out, only, steps, starts, threads):
    """One decoder of many molecules, MODEL, against one decoder for each molecule."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    many, card, name = load_decoder(model)
    recipe = decoder_recipe(json.loads(card.training["recipe"]), name)
    seen = sorted(set(only) & set(recipe.molecules + recipe.validation))
    if seen:
        unseen = ", ".join(recipe.test)
        raise InputError(f"--molecule {seen[0]}: {name} was trained on it; its test molecules are {unseen}")
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for trajectory in read_folder(data, list(only or recipe.test), recipe.spacing_fs or None):
        own = single_recipe(recipe, trajectory.name, steps)
        single = trained(own, trajectory, out / trajectory.name)
        found[trajectory.name] = compared(many, single, trajectory, recipe.train_part, starts)
    rows = table(found)
    write_rows(out / "single_task.csv", rows)
    for row in rows:
        errors = "".join(f"{row[f'{h:g} fs']:10.2f}" for h in HORIZONS)
        click.echo(f"{row['molecule']:<14}{row['decoder']:<38}{errors}")
    click.echo(verdict(found))


if __name__ == "__main__":
    main()
