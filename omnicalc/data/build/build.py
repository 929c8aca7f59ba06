"""A recipe into a folder of shards: resumable, and the same structures on every run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from omnicalc.data.build.job import Job, jobs, run_job
from omnicalc.data.build.recipe import Recipe
from omnicalc.errors import InputError
from omnicalc.files import write_atomically
from omnicalc.signals import StopWish


def build(recipe: Recipe, out: Path, run_all: Callable, report: Callable[[int, int, int], None]) -> bool:
    """Write ``shard-NNNN.extxyz`` for every batch of jobs that has none yet; False when stopped before the end.

    Args:
        run_all: ``run_all(function, arguments)`` yields ``(argument, result)`` as they are done, in any order.
        report: called with shards done, shards in all, and frames so far.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_folder(recipe, out)
    todo = jobs(recipe)
    batches = [todo[k : k + recipe.jobs_per_shard] for k in range(0, len(todo), recipe.jobs_per_shard)]
    missing = [k for k in range(len(batches)) if not _shard(out, k).is_file()]
    frames = 0
    with StopWish() as wish:
        done = len(batches) - len(missing)
        report(done, len(batches), frames)
        for k, (labelled, left_out) in run_all(Batch(recipe, batches), missing):
            _write(out, k, labelled, left_out)
            done, frames = done + 1, frames + len(labelled)
            report(done, len(batches), frames)
            if wish.signal is not None:
                return False
    return True


class Batch:
    """Runs batch number ``k``; picklable, for other processes."""

    def __init__(self, recipe: Recipe, batches: list[list[Job]]):
        self._recipe, self._batches = recipe, batches

    def __call__(self, k: int) -> tuple[list, list[str]]:
        labelled, left_out = [], []
        for job in self._batches[k]:
            good, bad = run_job(job, self._recipe)
            labelled += good
            left_out += bad
        return labelled, left_out


def _shard(out: Path, k: int) -> Path:
    return out / f"shard-{k:04d}.extxyz"


def _write(out: Path, k: int, labelled: list, left_out: list[str]) -> None:
    from ase.io import write

    if left_out:
        _note(out, k, left_out)
    write_atomically(_shard(out, k), lambda path: write(path, labelled, format="extxyz"))


def _note(out: Path, k: int, left_out: list[str]) -> None:
    with (out / "left_out.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{k:04d} {line}\n" for line in left_out)


def _check_folder(recipe: Recipe, out: Path) -> None:
    """One folder, one recipe: shards of another one are not to be mixed in."""
    from dataclasses import asdict

    text = json.dumps(asdict(recipe), indent=1, sort_keys=True) + "\n"
    path = out / "recipe.json"
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise InputError(f"'{out}' was begun with another recipe, see '{path}'; choose another --out")
    elif any(out.glob("shard-*.extxyz")):
        raise InputError(f"'{out}' holds shards but no recipe.json; choose another --out")
    else:
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
