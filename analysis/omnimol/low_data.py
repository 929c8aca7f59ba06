"""How much does pretraining help when labels are few? OMNIMOL's Tables II and III at the scale of one CPU.

For direct and for conservative forces a body is pretrained by denoising on all training structures, labels unseen.
Then every combination of {from scratch, pretrained} and {100, 1,000, all} labelled structures is trained for the same
number of steps, and its best validation errors go into ``low_data.csv`` and ``low_data.png``. Finished runs are kept,
unfinished ones go on where they stopped: run it again after an interruption.

    python -m analysis.omnimol.low_data --recipe omnimol-organics --data DATA --out OUT
    python -m analysis.omnimol.low_data --recipe omnimol-organics --data DATA --out OUT --quick
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.common.figures import new_figure, save_figure
from analysis.common.trainings import on_frames, train, validations, write_rows
from omnicalc.training.recipe import Recipe, Stage, find_recipe, read_recipe

FORCES = {"gradient": "conservative", "direct": "direct"}
STARTS = ("scratch", "pretrained")
QUICK = {"width": 16, "attention_heads": 2, "layers": 1}


@dataclass(frozen=True)
class Case:
    """One training run of the study."""

    forces: str
    start: str
    structures: int | None  # labelled ones; None: all

    @property
    def name(self) -> str:
        return f"{FORCES[self.forces]}-{self.start}-{self.structures or 'all'}"


def main() -> None:
    given = _arguments()
    base = read_recipe(find_recipe(given.recipe))
    steps, sizes = (given.steps, tuple(given.structures)) if not given.quick else (40, (20, None))
    if given.quick:
        base = replace(base, model=base.model | QUICK)
    rows = []
    for forces in FORCES:
        body = pretrained(base, forces, given, steps)
        for case in cases(forces, sizes):
            recipe = case_recipe(base, case, steps, body)
            train(recipe, given.data, given.out / case.name)
            rows.append({"case": case, **best_errors(given.out / case.name)})
            print(f"{case.name}: force MAE {1e3 * rows[-1]['force_mae']:.1f} meV/Å, "
                  f"energy MAE {1e3 * rows[-1]['energy_mae']:.2f} meV/atom", flush=True)  # fmt: skip
    write_table(given.out / "low_data.csv", rows)
    draw(given.out / "low_data.png", rows)


def cases(forces: str, sizes: tuple[int | None, ...]) -> Iterator[Case]:
    for size in sizes:
        for start in STARTS:
            yield Case(forces, start, size)


def pretrained(base: Recipe, forces: str, given, steps: int) -> Path:
    """Weights folder of a body that was trained to denoise all training structures."""
    objective = {"name": "force-denoising", "noise": 0.05, "rotate": forces == "direct"}
    stage = replace(base.stages[0], steps=steps, warmup=max(1, steps // 10), force_weight=1.0)
    recipe = variant(base, forces, (stage,), f"denoised-{FORCES[forces]}", objective)
    folder = given.out / recipe.name
    train(recipe, given.data, folder)
    return folder / "best"


def case_recipe(base: Recipe, case: Case, steps: int, body: Path) -> Recipe:
    stage: Stage = replace(base.stages[0], steps=steps, warmup=max(1, steps // 10))
    objective = {**base.objective, "rotate": case.forces == "direct"}
    recipe = on_frames(variant(base, case.forces, (stage,), case.name, objective), case.structures)
    return replace(recipe, start=str(body.resolve())) if case.start == "pretrained" else recipe


def variant(base: Recipe, forces: str, stages: tuple[Stage, ...], name: str, objective: dict) -> Recipe:
    every = max(1, stages[0].steps // 10)
    optimiser = replace(base.optimiser, validate_every=every, checkpoint_every=every)
    model = {**base.model, "forces": forces, "repulsion": "none"}
    return replace(base, name=name, model=model, stages=stages, objective=objective, optimiser=optimiser)


def best_errors(folder: Path) -> dict[str, float]:
    """Errors (eV/Å, eV/atom) of the validation with the least force error, averaged over the sources."""
    rows = validations(folder)
    steps = sorted({int(row["step"]) for row in rows})

    def mean(key: str, step: int) -> float:
        values = [float(row[key]) for row in rows if int(row["step"]) == step]
        return sum(values) / len(values)

    best = min(steps, key=lambda step: mean("force_mae", step))
    return {key: mean(key, best) for key in ("force_mae", "energy_mae")}


def write_table(file: Path, rows: list[dict]) -> None:
    table = [
        {
            "forces": FORCES[row["case"].forces],
            "start": row["case"].start,
            "structures": row["case"].structures or "all",
            "force_mae_meV_per_A": round(1e3 * row["force_mae"], 3),
            "energy_mae_meV_per_atom": round(1e3 * row["energy_mae"], 3),
        }
        for row in rows
    ]
    write_rows(file, table)


def draw(file: Path, rows: list[dict]) -> None:
    """Force errors against the number of labelled structures, a line for each way."""
    from matplotlib.ticker import ScalarFormatter

    figure = new_figure(5.5, 4.0)
    axes = figure.subplots()
    sizes = list(dict.fromkeys(row["case"].structures for row in rows))
    labels = ["all" if size is None else f"{size:,}" for size in sizes]
    for colour, forces in zip(("tab:blue", "tab:orange"), FORCES, strict=True):
        for style, start in zip(("--", "-"), STARTS, strict=True):
            mine = [row for row in rows if (row["case"].forces, row["case"].start) == (forces, start)]
            errors = [1e3 * row["force_mae"] for row in mine]
            axes.plot(range(len(sizes)), errors, style, marker="o", color=colour, label=f"{FORCES[forces]}, {start}")
    axes.set_xticks(range(len(sizes)), labels)
    axes.set(xlabel="labelled structures", ylabel="force MAE, validation (meV/Å)", yscale="log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    save_figure(figure, file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="omnimol-organics", help="whose model, data and first stage are used")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's data files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--steps", type=int, default=5000, help="of every run [default: 5000]")
    sizes = [100, 1000, None]
    parser.add_argument("--structures", type=_size, nargs="+", default=sizes, help="[default: 100 1000 all]")
    parser.add_argument("--quick", action="store_true", help="a tiny network and 40 steps: whether it runs at all")
    return parser.parse_args()


def _size(word: str) -> int | None:
    return None if word == "all" else int(word)


if __name__ == "__main__":
    main()
