"""What studies of many trainings share: fewer frames of a recipe, a training that goes on, its log, a table."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import click

from omnicalc.files import write_atomically
from omnicalc.training.recipe import Recipe


def on_frames(recipe: Recipe, frames: int | None) -> Recipe:
    """The recipe on ``frames`` training frames in all, shared out among its sources by their weights; None: on all."""
    if frames is None:
        return recipe
    total = sum(source.weight for source in recipe.data)
    shares = [max(1, round(frames * source.weight / total)) for source in recipe.data]
    return replace(recipe, data=tuple(replace(s, limit=n) for s, n in zip(recipe.data, shares, strict=True)))


def train(recipe: Recipe, data: Path, out: Path, device: str = "cpu") -> None:
    """Train in ``out``, or go on, or nothing where the run is finished. Raises SystemExit when a signal stopped it."""
    from omnicalc.training.trainer import Trainer

    finish(Trainer(recipe, data, out, device=device, report=lambda line: click.echo(f"{out.name}: {line}")), out)


def finish(trainer, out: Path) -> None:
    """Run a trainer of any kind from where ``out`` says that it stopped. Raises SystemExit when a signal stops it."""
    trainer.prepare(resume=(out / "state.pt").is_file())
    signal = trainer.run()
    if signal is not None:
        click.echo(f"stopped; the state of {out} is saved, the same command goes on")
        raise SystemExit(128 + signal)


def weights_of(recipe: Recipe, data: Path, folder: Path, device: str = "cpu") -> Path:
    """The exported weights of one training: of what is there, or after what is left of it.

    Raises SystemExit when a signal stopped it.
    """
    from omnicalc.training.run import train

    weights = folder / "weights"
    if not (weights / "card.toml").is_file():
        code = train(
            recipe, data, folder, resume=(folder / "state.pt").is_file(), steps=None, device=device,
            report=lambda line: click.echo(f"{folder.name}: {line}"), progress=lambda *_: None,
        )  # fmt: skip
        if code:
            raise SystemExit(code)
    return weights


def validations(folder: Path) -> list[dict]:
    """Rows of a training's log: errors on all held-out frames of one source at one step; none before it began."""
    log = folder / "log.csv"
    if not log.is_file():
        return []
    with log.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["group"] == "all"]


def write_rows(path: Path, rows: list[dict]) -> None:
    """A table as CSV, columns as in its first row."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda temporary: temporary.write_text(text.getvalue()))
