"""``omnicalc train``: a recipe and its data in, a weights folder out."""

from pathlib import Path

import click

from omnicalc.cli.options import Folder


@click.command(name="train")
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the data files.")
@click.option("--out", type=Folder(), required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the last saved state of the folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after this many more steps; --resume goes on later.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the step (needs a C++ compiler).")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: torch's own choice]")
def command(recipe, data, out, resume, steps, compiled, threads):
    """Train a potential from RECIPE: a TOML file, or the name of a shipped recipe such as ubio-s3-small."""
    from omnicalc.errors import InputError
    from omnicalc.training.recipe import find_recipe, read_recipe

    settings = read_recipe(find_recipe(recipe))
    if not data.is_dir():
        raise InputError(f"'{data}' is no folder; --data takes the folder that holds the recipe's data files")

    import torch

    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.training.export import export
    from omnicalc.training.trainer import Trainer, check_folder

    check_folder(settings, out, resume)
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    trainer = Trainer(settings, data, out, compiled=compiled, report=click.echo)
    trainer.prepare(resume)
    frames = sum(len(part) for part in trainer.dataset.train)
    size = sum(p.numel() for p in trainer.model.parameters())
    click.echo(f"{settings.name}:{settings.tag}@{settings.version}: {size} parameters, {frames} training frames")
    signal = trainer.run(steps)
    if trainer.state.step < settings.steps:
        click.echo(f"stopped at step {trainer.state.step} of {settings.steps}; go on with --resume")
        if signal is not None:
            raise SystemExit(128 + signal)  # as the shell reports a process ended by this signal
        return
    export(trainer, out / "weights")
    click.echo(f"weights: {out / 'weights'}\nnext: omnicalc md STRUCTURE --model {out / 'weights'}")
