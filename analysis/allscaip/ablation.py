"""What do the parts of AllScAIP give? The paper's ablation at the scale of small boxes: one part at a time is left out.

``full`` is the network of the recipe with the Legendre encoding of angles and the sinc encoding of distances; beside it
stand one without angles, one without distances, and one without attention between all atoms (which is where distances
enter, so it has neither). Each is trained on few and on all frames for the same number of steps, from the same seeds,
and its best errors on held-out frames go into ``ablation.csv`` and ``ablation.png``. Finished parts are kept,
unfinished ones go on where they stopped. Parts can run as processes of their own; the call without --only then
makes the summary.

    python -m analysis.allscaip.ablation --data DATA --out OUT
    python -m analysis.allscaip.ablation --data DATA --out OUT --only full-50-seed0
    python -m analysis.allscaip.ablation --data DATA --out OUT --quick
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from analysis.common.figures import new_figure, save_figure
from analysis.common.trainings import on_frames, train, validations, write_rows
from omnicalc.errors import InputError
from omnicalc.training.recipe import Recipe, find_recipe, read_recipe

VARIANTS = {  # what is left out -> settings
    "full": {},
    "no-angles": {"angular": []},
    "no-distances": {"sinc": 0},
    "no-nodes": {"node_attention": False, "sinc": 0},
}
SINC = 16  # frequencies of the distance encoding, which the recipe itself does without
QUICK = {"width": 16, "layers": 1, "angular": [2, 1, 1], "n_radial": 8}


@dataclass(frozen=True)
class Case:
    """One training run of the study."""

    variant: str
    frames: int | None  # None: all
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.frames or 'all'}-seed{self.seed}"


@dataclass(frozen=True)
class Size:
    """How long every run is."""

    steps: int
    structures: int  # per step
    quick: bool = False


def cases(sizes: tuple[int | None, ...], seeds: int) -> Iterator[Case]:
    for seed in range(seeds):
        for size in sizes:
            for variant in VARIANTS:
                yield Case(variant, size, seed)


def case_recipe(base: Recipe, case: Case, size: Size) -> Recipe:
    """The recipe of one run: the first stage of ``base``, as long as ``size`` says, on so many of its frames."""
    stage = replace(base.stages[0], steps=size.steps, decay_steps=None, warmup=max(1, size.steps // 15))
    model = {**base.model, "sinc": SINC} | (QUICK if size.quick else {})
    if case.variant == "no-angles" and size.quick:
        model = {k: v for k, v in model.items() if k != "angular"}
    model |= VARIANTS[case.variant]
    optimiser = replace(
        base.optimiser, seed=base.optimiser.seed + case.seed, validate_frames=20,
        validate_every=max(1, size.steps // 4), checkpoint_every=max(1, size.steps // 10),
    )  # fmt: skip
    recipe = replace(base, name="allscaip", tag=case.name, model=model, stages=(stage,), optimiser=optimiser,
                     batch=replace(base.batch, structures=size.structures))  # fmt: skip
    return on_frames(recipe, case.frames)


def finished(folder: Path, steps: int) -> bool:
    """Whether a run has logged the validation of its last step."""
    return any(int(row["step"]) == steps for row in validations(folder))


def last_errors(folder: Path) -> dict[str, float]:
    """Source -> force MAE (eV/Å) on all its held-out frames, of the averaged weights at the end."""
    rows = validations(folder)
    last = max(int(row["step"]) for row in rows)
    return {row["source"]: float(row["force_mae"]) for row in rows if int(row["step"]) == last}


def summary(errors: dict[Case, dict[str, float]]) -> list[dict]:
    """Mean over the seeds and its standard error (NaN for one seed), meV/Å, of every variant, size and source."""
    table = []
    for variant, frames in dict.fromkeys((c.variant, c.frames) for c in errors):
        runs = [e for c, e in errors.items() if (c.variant, c.frames) == (variant, frames)]
        for source in runs[0]:
            values = 1e3 * np.array([r[source] for r in runs])
            spread = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            table.append({
                "variant": variant, "frames": frames or "all", "source": source,
                "force_mae_meV_per_A": round(float(values.mean()), 3), "stderr": round(float(spread), 3),
                "seeds": len(values),
            })  # fmt: skip
    return table


def draw(file: Path, table: list[dict]) -> None:
    """A panel for each source: groups of bars for each size, a bar for each variant."""
    sources, sizes = (list(dict.fromkeys(row[key] for row in table)) for key in ("source", "frames"))
    figure = new_figure(3.6 * len(sources) + 1.2, 3.4)
    for axis, source in zip(np.atleast_1d(figure.subplots(1, len(sources))), sources, strict=True):
        for k, variant in enumerate(VARIANTS):
            rows = [r for r in table if (r["source"], r["variant"]) == (source, variant)]
            places = [sizes.index(r["frames"]) + 0.2 * (k - 1.5) for r in rows]
            axis.bar(places, [r["force_mae_meV_per_A"] for r in rows], 0.18, label=variant, capsize=2,
                     yerr=[r["stderr"] for r in rows], color=("0.3", "C0", "C1", "C2")[k])  # fmt: skip
        axis.set_xticks(range(len(sizes)), [f"{size} frames" for size in sizes])
        axis.set_title(source, fontsize=9)
        axis.set_ylabel("force MAE on held-out frames (meV/Å)", fontsize=8)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(VARIANTS), frameon=False, fontsize=8)
    save_figure(figure, file)


@click.command()
@click.option("--recipe", default="allscaip-tiny", show_default=True, help="Whose model, data, first stage.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--frames", multiple=True, type=click.IntRange(min=2), default=(50,), show_default=True,
              help="Training frames, besides all of them; several may be given.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=4000, show_default=True, help="Of every run.")
@click.option("--structures", type=click.IntRange(min=1), default=1, show_default=True, help="Boxes per step.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--only", multiple=True, help="Run these parts alone, such as full-50-seed0, and make no summary.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--quick", is_flag=True, help="A tiny network and 4 steps: whether it runs at all.")
def main(recipe, data, out, frames, steps, structures, seeds, only, device, quick):
    """What leaving out parts of AllScAIP does to forces on held-out frames."""
    base = read_recipe(find_recipe(recipe))
    size = Size(4, 1, quick=True) if quick else Size(steps, structures)
    wanted = list(cases((2, None) if quick else (*frames, None), seeds))
    unknown = sorted(set(only) - {case.name for case in wanted})
    if unknown:
        raise InputError(f"--only {unknown[0]}; the parts are {', '.join(case.name for case in wanted)}")
    for case in wanted:
        if only and case.name not in only:
            continue
        if not finished(out / case.name, size.steps):
            train(case_recipe(base, case, size), data, out / case.name, device)
    if only:
        return
    table = summary({case: last_errors(out / case.name) for case in wanted})
    write_rows(out / "ablation.csv", table)
    draw(out / "ablation.png", table)
    for row in table:
        click.echo(f"{row['variant']:>12} {row['frames']!s:>5} {row['source']:<20} {row['force_mae_meV_per_A']:.1f}")


if __name__ == "__main__":
    main()
