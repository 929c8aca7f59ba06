"""``omnicalc train``: a recipe and its data in, a weights folder out."""

import shlex
from pathlib import Path

import click

from omnicalc.cli.options import SEED, THREADS, FiniteRange, Folder, check_of_use, typed_options


@click.command(name="train")
@click.argument("recipe", required=False)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of data; or a file to tune on.")
@click.option("--out", type=Folder(), required=True, help="Folder of the run.")
@click.option("--from", "start", help="Weights to begin with: a folder, or a name as in ubio-s3.")
@click.option("--resume", is_flag=True, help="Go on from the last saved state of the folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after this many more steps; --resume goes on later.")
@click.option("--head", help="Fine-tuning: head to train, new or old. [default: a new one, named after the file]")
@click.option("--level", help="Fine-tuning: level of theory of the labels, in words, for the card.")
@click.option("--replay", help="Fine-tuning: file of old frames, or none. [default: the one beside the weights]")
@click.option("--train", "trains", type=click.Choice(["all", "heads", "lora"]), help="Fine-tuning. [default: all]")
@click.option("--rank", type=click.IntRange(min=1), help="Fine-tuning: of LoRA's updates. [default: 4]")
@click.option("--length", type=click.IntRange(min=1), help="Fine-tuning: steps in all. [default: 3000]")
@click.option(
    "--rate",
    type=FiniteRange(0, 1, min_open=True),
    help="Fine-tuning: learning rate. [default: 2e-3; of networks above 1 M parameters 5e-4]",
)
@click.option(
    "--matrices",
    type=click.Choice(["adam", "muon"]),
    help="Fine-tuning: what matrices step by. [default: as in the training of the weights]",
)
@click.option("--seed", type=SEED, help="Fine-tuning. [default: 0]")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--record/--no-record",
    default=None,
    help="NVIDIA GPU: each step's gradients as one recorded CUDA graph. [default: where that can be]",
)
@click.option("--threads", type=THREADS, help="CPU threads of a process. [default: cores / processes]")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share the structures of each step: CPU cores, or one GPU each.",
)
def command(recipe, data, out, start, resume, steps, device, record, threads, processes, **tuning):
    """Train a potential from RECIPE: a TOML file, or the name of a shipped recipe such as ubio-s3-small.

    Without RECIPE, weights are fine-tuned on a file of labelled frames:

        omnicalc train --from ubio-s3 --data mine.extxyz --out tuned

    Over several machines, or where you prefer it, by torchrun in place of --processes:

        torchrun --nproc-per-node 2 --no-python omnicalc train ...
    """
    from dataclasses import replace
    from functools import partial

    from omnicalc.errors import InputError
    from omnicalc.training.recipe import find_recipe, read_recipe
    from omnicalc.training.state import check_folder

    if recipe is None:
        settings = _fine_tuning(start, data, tuning)
        data = data.parent
    else:
        _check_no_tuning(tuning)
        settings = read_recipe(find_recipe(recipe))
        if start is not None:
            settings = replace(settings, start=start)
        if not data.is_dir():
            raise InputError(f"'{data}' is no folder; --data takes the folder that holds the recipe's data files")
    check_folder(settings, out, resume)

    import torch

    from omnicalc.cli.progress import progress_by_unit
    from omnicalc.registry import choose_device
    from omnicalc.training.companions import companions

    work = partial(
        _work, settings, data, out,
        resume=resume, steps=steps, device=choose_device(device), record=record, command=_typed(recipe),
        threads=threads or max(1, torch.get_num_threads() // processes),
    )  # fmt: skip
    with companions(processes, work), progress_by_unit() as progress:
        code = work(report=click.echo, progress=progress)
    if code:
        raise SystemExit(code)


def _typed(recipe: str | None) -> str:
    """This call without what changes no weights, for the card."""
    words = ["omnicalc", "train", *([] if recipe is None else [recipe])]
    options = typed_options(without=("resume", "steps", "device", "record", "threads", "processes"))
    return f"{shlex.join(words)} {options}"


def _work(*args, threads: int, **settings) -> int:
    """What each of the processes does."""
    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.cli.threads import cpu_threads
    from omnicalc.training.run import train

    keep_freed_memory()
    with cpu_threads(threads):
        return train(*args, **settings)


def _fine_tuning(start: str | None, data: Path, tuning: dict):
    """The recipe of a fine-tuning run."""
    from omnicalc.errors import InputError

    if start is None:
        raise InputError("give a RECIPE to train, or weights to fine-tune: --from ubio-s3 --data mine.extxyz --out DIR")
    from omnicalc.cli.progress import progress_of
    from omnicalc.training.fine_tune import FineTune, fine_tune_recipe

    if tuning["trains"] != "lora":
        check_of_use({"rank": "without LoRA; add --train lora"})
    names = {"rank": "lora_rank", "rate": "learning_rate"}
    given = {names.get(k, k): v for k, v in tuning.items() if v is not None}
    with progress_of("frames to tune on") as progress:
        return fine_tune_recipe(FineTune(start, data, **given), progress)


def _check_no_tuning(tuning: dict) -> None:
    from omnicalc.errors import InputError

    given = ["train" if k == "trains" else k for k, v in tuning.items() if v is not None]
    if given:
        raise InputError(f"--{given[0]} is for fine-tuning without a recipe; with one, write it into the recipe")
