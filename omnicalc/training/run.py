"""One training run from settings to a weights folder, as the command line does it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from omnicalc.model_text import use_of
from omnicalc.training.errors_shown import before_and_after
from omnicalc.training.export import export
from omnicalc.training.recipe import Recipe
from omnicalc.training.state import writing
from omnicalc.training.surroundings import write_surroundings
from omnicalc.training.trainer import Trainer

WEIGHTS_FOLDER = "weights"


def train(
    recipe: Recipe, data: Path, out: Path, *, resume: bool, steps: int | None, device, report: Callable,
    progress: Callable, record: bool | None = None, command: str = "",
) -> int:  # fmt: skip
    """Train, and export when the schedule is through. Returns the exit code: 0, or as after a signal."""
    trainer = Trainer(
        recipe, data, out, device=device, report=report, progress=progress, record=record, command=command
    )
    trainer.prepare(resume)  # before anything is said: it refuses a damaged state
    report = trainer.report
    report(f"{recipe.name}:{recipe.tag}@{recipe.version}: {_size(trainer)} parameters")
    if trainer.start_report:
        report(trainer.start_report)
    if hasattr(trainer.model, "training_notice") and (notice := trainer.model.training_notice(trainer.device)):
        report(notice)
    for source in trainer.dataset.sources:
        structures = f"{len(source.train)} training and {len(source.valid)} validation structures"
        report(f"{source.settings.label} ({source.settings.head}): {structures}")
    signal = trainer.run(steps)
    report(f"packs: {trainer.packing}")
    if trainer.recorded is not None:
        report(str(trainer.recorded))
    efficiency = trainer.efficiency()
    if trainer.processes.count > 1:
        report(f"scaling efficiency of {trainer.processes.count} processes: {100 * efficiency:.0f} %")
    if trainer.skipped:
        report(f"{trainer.skipped} steps were skipped because their loss or gradient was not finite")
    trainer.processes.leave()
    if trainer.step < recipe.steps:
        report(f"stopped at step {trainer.step} of {recipe.steps}; go on with --resume")
        return 0 if signal is None else 128 + signal  # as the shell reports a process ended by this signal
    if trainer.processes.first:
        weights = out / WEIGHTS_FOLDER
        with writing(weights, trainer.state_file):
            card = export(trainer, weights)
            looked_at = partial(trainer.progress, "frames for surroundings.json")
            write_surroundings(trainer.dataset, card, weights, recipe, looked_at)
        if recipe.start:
            report(before_and_after(trainer.log.read()))
        report(f"weights: {weights}\nnext: {use_of(card, str(weights))}")
    return 0


def _size(trainer: Trainer) -> int:
    return sum(p.numel() for p in trainer.model.parameters())
