"""``omnicalc decoder train``: a recipe and trajectories in, the weights of a decoder out."""

import shlex
from dataclasses import replace
from pathlib import Path

import click

from omnicalc.cli.options import SEED, THREADS, Folder, typed_options


@click.command(name="train")
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of trajectories (npz).")
@click.option("--out", type=Folder(), required=True, help="Folder of the run.")
@click.option("--seed", type=SEED, help="Another seed than the recipe's.")
@click.option("--resume", is_flag=True, help="Go on from the last saved state of the folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after this many more steps; --resume goes on later.")
@click.option("--threads", type=THREADS, help="CPU threads. [default: torch's own choice]")
def command(recipe, data, out, seed, resume, steps, threads):
    """Train a decoder from RECIPE: a TOML file, or the name of a shipped recipe such as atom-small.

    \b
    omnicalc data build tg-mini --out tg-mini
    omnicalc decoder train atom-small --data tg-mini --out atom-small
    """
    from omnicalc.training.decoder.recipe import find_decoder_recipe, read_decoder_recipe

    settings = read_decoder_recipe(find_decoder_recipe(recipe))
    if seed is not None:
        settings = replace(settings, seed=seed)
    from omnicalc.data.trajectories import read_folder

    parts = (settings.molecules, settings.validation, settings.test)
    spacing = settings.spacing_fs or None
    train, valid, unseen = (read_folder(data, list(names), spacing) if names else [] for names in parts)

    from omnicalc.cli.threads import cpu_threads
    from omnicalc.training.decoder.export import export
    from omnicalc.training.decoder.trainer import DecoderTrainer

    typed = f"omnicalc decoder train {shlex.quote(recipe)} {typed_options(without=('resume', 'steps', 'threads'))}"
    with cpu_threads(threads):
        trainer = DecoderTrainer(settings, train, valid, out, report=click.echo)
        trainer.prepare(resume)
        size = sum(p.numel() for p in trainer.model.parameters())
        click.echo(f"{settings.name}:{settings.tag}@{settings.version}: {size} parameters, {len(train)} to train on")
        signal = trainer.run(steps)
        if trainer.step < settings.steps:
            click.echo(f"stopped at step {trainer.step} of {settings.steps}; go on with --resume")
            if signal is not None:
                raise SystemExit(128 + signal)  # as the shell reports a process ended by this signal
            return
        card = export(trainer, unseen, out / "weights", typed)
    click.echo(f"error on molecules not trained on: {card.error_growth() or 'not measured'}")
    click.echo(f"weights: {out / 'weights'}\nnext: omnicalc decode START --model {shlex.quote(str(out / 'weights'))}")
