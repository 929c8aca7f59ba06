"""``omnicalc train``: a recipe and its data in, a weights folder out."""

from pathlib import Path

import click

from omnicalc.cli.options import Folder


@click.command(name="train")
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the data files.")
@click.option("--out", type=Folder(), required=True, help="Folder of the run.")
@click.option("--from", "start", help="Weights to begin with: a folder, or a name as in ubio-s3.")
@click.option("--resume", is_flag=True, help="Go on from the last saved state of the folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after this many more steps; --resume goes on later.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: torch's own choice]")
def command(recipe, data, out, start, resume, steps, device, threads):
    """Train a potential from RECIPE: a TOML file, or the name of a shipped recipe such as ubio-s3-small.

    Several processes share the work under torchrun: torchrun --nproc-per-node 2 --no-python omnicalc train ...
    """
    from dataclasses import replace

    from omnicalc.errors import InputError
    from omnicalc.training.recipe import find_recipe, read_recipe
    from omnicalc.training.state import check_folder

    settings = read_recipe(find_recipe(recipe))
    if start is not None:
        settings = replace(settings, start=start)
    if not data.is_dir():
        raise InputError(f"'{data}' is no folder; --data takes the folder that holds the recipe's data files")
    check_folder(settings, out, resume)

    import torch

    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.cli.train_progress import train_progress
    from omnicalc.registry import choose_device
    from omnicalc.training.run import train

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    with train_progress() as (report, progress):
        code = train(
            settings, data, out,
            resume=resume, steps=steps, device=choose_device(device), report=report, progress=progress,
        )  # fmt: skip
    if code:
        raise SystemExit(code)
