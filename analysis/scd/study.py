"""Does pretraining on geometries pay? Four beginnings of the same network, fine-tuned alike.

    python -m analysis.scd.study molecules_xtb.extxyz --unlabelled geometries.extxyz --out scd_study
    python -m analysis.scd.study molecules_xtb.extxyz molecules_dft.extxyz --target gap_dft --out scd_study

scratch; plain denoising; self-conditioned denoising (SCD); energies and forces (with the labels that the others do
without). Each is pretrained once and fine-tuned, with each seed, to every target, properties and ``forces``, on the
same molecules with the same number of steps, and judged on test molecules that no training saw. Frames without forces
serve the properties that they have. Both denoising beginnings learn from ``--unlabelled`` geometries, without those of
molecules to validate and test on, or else from the labelled ones. Can be stopped and started again; finished parts are
kept. Beginnings can run as processes of their own, as with ``--only scd``; the call without it then makes the summary.
``--quick`` runs everything once in minutes, for a look at the code, not at numbers.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write

from analysis.common.figures import new_figure, save_figure
from analysis.common.trainings import weights_of, write_rows
from omnicalc.cli.memory import keep_freed_memory
from omnicalc.data.protocols import with_property
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError
from omnicalc.files import write_atomically

BEGINNINGS = ("scratch", "denoising", "scd", "energy-forces")
FORCES = "forces"


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    channels: int = 64
    layers: int = 3
    basis: int = 32
    pretraining_steps: int = 2500
    steps: int = 800
    structures: int = 64  # per step
    seeds: int = 3
    widest_noise: float | None = None  # Å, of both denoising beginnings
    self_conditioned: bool = False  # properties are read under the structure's own embedding, of a first pass


QUICK = Size(channels=16, layers=1, basis=8, pretraining_steps=6, steps=6, structures=4, seeds=1)

RECIPE = """
name = "study"
tag = "{tag}"
version = "0"
family = "scd"
summary = "{tag}"
licence = "not stated"
reference_note = "least squares over the training molecules"
{start}
[model]
channels = {size.channels}
layers = {size.layers}
n_basis = {size.basis}
gives = "{gives}"
energy_pool = "{pool}"
self_conditioned = {self_conditioned}
mean = {mean}
std = {std}
[objective]
{objective}
[optimiser]
seed = {seed}
betas = [0.9, 0.999]
weight_decay = 0.01
clip_norm = 1.0
validate_every = {steps}
checkpoint_every = 100
[batch]
structures = {size.structures}
by_width = false
[[stages]]
steps = {steps}
warmup = {warmup}
learning_rate = {rate}
energy_weight = 1.0
energy_weight_late = 1.0
[[data]]
head = "{head}"
level_of_theory = "GFN2-xTB"
shards = "{file}"
energies = {energies}
forces = {forces}
{references}
"""


def splits(frames: list[Atoms]) -> dict[str, list[Atoms]]:
    """By molecule: 70 % to pretrain on and to draw labels from, 10 % to validate, 20 % to test."""
    names = sorted({a.info["molecule"] for a in frames})
    order = np.random.default_rng(0).permutation(len(names))
    place = {names[k]: rank / len(names) for rank, k in enumerate(order)}
    pool = [a for a in frames if place[a.info["molecule"]] < 0.7]
    valid = [a for a in frames if 0.7 <= place[a.info["molecule"]] < 0.8]
    test = [a for a in frames if place[a.info["molecule"]] >= 0.8]
    if min(map(len, (pool, valid, test))) == 0:
        raise InputError(f"{len(names)} molecules in the frames; at least ten different ones (info 'molecule') needed")
    return {"pool": pool, "valid": valid, "test": test}


def with_target(frames: list[Atoms], target: str) -> list[Atoms]:
    """The frames that have this label."""
    if target == FORCES:
        return [a for a in frames if a.calc is not None and "forces" in a.calc.results]
    return [a for a in frames if target in a.info]


def few_labels(pool: list[Atoms], target: str, most: int | None) -> list[Atoms]:
    """At most so many frames of the pool with this label, drawn at random. Raises InputError where none has it."""
    there = with_target(pool, target)
    if not there:
        known = sorted({k for a in pool for k in a.info} - {"molecule", "smiles", "charge", "kind", "split"})
        raise InputError(f"no frame has '{target}'; the frames know {', '.join(known)} and {FORCES}")
    return [there[k] for k in sorted(np.random.default_rng(0).permutation(len(there))[:most])]


def geometries(parts: dict[str, list[Atoms]], unlabelled: list[Atoms]) -> list[Atoms]:
    """What may be denoised: the unlabelled frames of molecules that nothing is judged on; without any, the pool."""
    if not unlabelled:
        return with_target(parts["pool"], FORCES)
    judged = {a.info["molecule"] for part in ("valid", "test") for a in parts[part]}
    nameless = next((k for k, a in enumerate(unlabelled) if "molecule" not in a.info), None)
    if nameless is not None:
        raise InputError(f"--unlabelled: frame {nameless} has no info 'molecule', so it may be one of the test")
    return [a for a in unlabelled if a.info["molecule"] not in judged]


def write_parts(
    folder: Path, parts: dict[str, list[Atoms]], targets: tuple[str, ...], labels: int | None, unlabelled: list[Atoms]
) -> None:
    """The files that the recipes name: labels and geometries to pretrain on, and the labels of each target."""
    folder.mkdir(parents=True, exist_ok=True)
    valid = with_target(parts["valid"], FORCES)
    _write(folder / "pool.extxyz", with_target(parts["pool"], FORCES), valid)
    _write(folder / "geometries.extxyz", [_bare(a) for a in geometries(parts, unlabelled)], [_bare(a) for a in valid])
    for target in targets:
        train, valid = few_labels(parts["pool"], target, labels), with_target(parts["valid"], target)
        if target != FORCES:
            train, valid = (list(with_property([a.copy() for a in part], target)) for part in (train, valid))
        _write(folder / f"{target}.extxyz", train, valid)


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, info={"molecule": atoms.info["molecule"], "charge": 0})


def _write(file: Path, train: list[Atoms], valid: list[Atoms]) -> None:
    for split, frames in (("train", train), ("valid", valid)):
        for atoms in frames:
            atoms.info["split"] = split
    write_atomically(file, lambda temporary: write(temporary, [*train, *valid], format="extxyz"))


def run(folder: Path, data: Path, device: str, **settings) -> Path:
    """One training, or what is left of it; its weights."""
    from omnicalc.training.recipe import read_recipe

    recipe = folder.with_suffix(".toml")
    if not (folder / "weights" / "card.toml").is_file():  # else it says what these were made by
        recipe.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(recipe, lambda temporary: temporary.write_text(RECIPE.format(**settings)))
    return weights_of(read_recipe(recipe), data, folder, device)


def pretrained(kind: str, out: Path, data: Path, device: str, size: Size) -> Path | None:
    """Weights to begin with, the same for all seeds, as a published checkpoint would be; None from scratch."""
    if kind == "scratch":
        return None
    labels = kind == "energy-forces"
    objective = 'name = "energy-forces"\nloss = "mae"' if labels else 'name = "self-conditioned-denoising"'
    if kind == "denoising":
        objective += "\nself_conditioned = false"
    if not labels and size.widest_noise is not None:
        objective += f"\nwidest_noise = {size.widest_noise}"
    return run(
        out / f"pretrain-{kind}", data, device, tag=kind, start="", gives="energies" if labels else "embeddings",
        pool="sum", objective=objective, seed=0, steps=size.pretraining_steps,
        warmup=max(1, min(300, size.pretraining_steps // 3)),
        rate=1e-3, mean=0.0, std=1.0, references="", head="xtb" if labels else "none",
        file="pool.extxyz" if labels else "geometries.extxyz",
        energies=str(labels).lower(), forces=str(labels).lower(), self_conditioned="false", size=size,
    )  # fmt: skip


def fine_tuned(
    kind: str, target: str, start: Path | None, folder: Path, data: Path, device: str, seed: int, size: Size, few
) -> Path:
    """Weights fine-tuned to one target from one beginning; ``few`` are the frames to train on.

    Gaps and dipoles do not grow with the molecule: they are learned as deviations from their mean, in units of their
    spread, without reference values of elements.
    """
    forces, mean, spread, references = target == FORCES, 0.0, 1.0, ""
    if not forces:
        labels = np.array([a.info[target] for a in few])
        mean, spread = float(labels.mean()), float(labels.std())
        symbols = "\n".join(f"{symbol} = 0.0" for symbol in chemical_symbols[1:54])
        references = f'[references."{target}"]\n{symbols}'
    objective = 'name = "energy-forces"\nloss = "mae"' if forces else f'name = "property"\nscale = {spread}'
    return run(
        folder / f"{target}-{kind}", data, device, tag=f"{kind}-{target}",
        start="" if start is None else f'start = "{start}"',
        gives="energies" if forces else "properties", pool="sum" if forces else "mean", objective=objective, seed=seed,
        steps=size.steps, warmup=max(1, min(100, size.steps // 3)), rate=5e-4, head="xtb" if forces else target,
        file=f"{target}.extxyz", energies="true", forces=str(forces).lower(), size=size, mean=mean, std=spread,
        references=references, self_conditioned=str(size.self_conditioned and not forces).lower(),
    )  # fmt: skip


def test_error(weights: Path, target: str, frames: list[Atoms], device: str) -> float:
    """Mean absolute error on test molecules: of the property in its unit, or of force components in eV/Å."""
    from omnicalc import load_potential, properties
    from omnicalc.evaluation import evaluate

    potential = load_potential(weights, device=device)
    if target != FORCES:
        wanted = np.array([a.info[target] for a in frames])
        return float(np.abs(properties(frames, potential, head=target) - wanted).mean())
    return 1e-3 * evaluate(potential, frames).errors().force_mae


@dataclass(frozen=True)
class Study:
    """What all chains share."""

    out: Path
    size: Size
    targets: tuple[str, ...]
    labels: int | None
    parts: dict[str, list[Atoms]]
    test: list[Atoms]
    device: str

    def errors(self, kind: str) -> list[dict]:
        """The errors of one beginning: trained as far as they are not there yet."""
        return [self._error(kind, target, seed) for seed in range(self.size.seeds) for target in self.targets]

    def _error(self, kind: str, target: str, seed: int) -> dict:
        folder, data = self.out / f"seed{seed}", self.out / "data"
        note, test = folder / f"{target}-{kind}.json", with_target(self.test, target)
        if not note.is_file():
            start = pretrained(kind, self.out, data, self.device, self.size)
            few = few_labels(self.parts["pool"], target, self.labels)
            weights = fine_tuned(kind, target, start, folder, data, self.device, seed, self.size, few)
            error = test_error(weights.resolve(), target, test, self.device)
            row = {"seed": seed, "beginning": kind, "target": target, "error": error}
            write_atomically(note, lambda temporary: temporary.write_text(json.dumps(row)))
        row = json.loads(note.read_text())
        click.echo(f"seed {seed}, {kind}, {target}: MAE {row['error']:.4f} on {len(test)} test structures")
        return row


def summary(rows: list[dict]) -> list[dict]:
    """Mean and standard error over the seeds of every beginning and target, and the gain over scratch in per cent."""
    found = []
    for target in dict.fromkeys(r["target"] for r in rows):
        scratch = np.mean([r["error"] for r in rows if (r["target"], r["beginning"]) == (target, "scratch")])
        for kind in dict.fromkeys(r["beginning"] for r in rows):
            errors = [r["error"] for r in rows if (r["target"], r["beginning"]) == (target, kind)]
            spread = np.std(errors, ddof=1) / len(errors) ** 0.5 if len(errors) > 1 else float("nan")
            gain = 100 * (1 - np.mean(errors) / scratch)
            found.append(
                {
                    "target": target,
                    "beginning": kind,
                    "mae": np.mean(errors),
                    "stderr": spread,
                    "gain_percent": gain,
                    "seeds": len(errors),
                }
            )
    return found


def draw(path: Path, table: list[dict]) -> None:
    targets = list(dict.fromkeys(r["target"] for r in table))
    figure = new_figure(2.6 * len(targets), 3.2)
    for axis, target in zip(np.atleast_1d(figure.subplots(1, len(targets))), targets, strict=True):
        mine = [r for r in table if r["target"] == target]
        axis.bar(range(len(mine)), [r["mae"] for r in mine], yerr=[r["stderr"] for r in mine], capsize=3,
                 color=["0.6", "C0", "C1", "C2"])  # fmt: skip
        axis.set_xticks(range(len(mine)), [r["beginning"] for r in mine], rotation=40, ha="right")
        unit = "D" if target.startswith("dipole") else "eV/Å" if target == FORCES else "eV"
        axis.set_title(target)
        axis.set_ylabel(f"MAE on test molecules ({unit})", fontsize=8)
    save_figure(figure, path)


@click.command()
@click.argument("labelled", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("gap", "dipole_moment", FORCES),
    show_default=True,
    help="Properties of the frames, and forces.",
)
@click.option(
    "--unlabelled",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Geometries for both denoising beginnings. [default: those of LABELLED]",
)
@click.option("--few", type=click.IntRange(min=1), help="Labelled frames to fine-tune on, at most. [default: all]")
@click.option("--seeds", type=click.IntRange(min=1), help="[default: 3]")
@click.option("--pretraining-steps", type=click.IntRange(min=1), help="[default: 2500]")
@click.option(
    "--widest-noise",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Å: noise of 0.04 Å to this for both denoising beginnings. [default: 0.04 Å alone]",
)
@click.option(
    "--self-conditioned",
    is_flag=True,
    default=None,
    help="Properties are read under the structure's own embedding, from whichever beginning.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of every fine-tuning. [default: 800]")
@click.option("--structures", type=click.IntRange(min=1), help="Per step. [default: 64]")
@click.option("--only", multiple=True, type=click.Choice(BEGINNINGS), help="These alone, and no summary.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Everything once, tiny and short.")
@click.option("--threads", type=click.IntRange(min=1))
def main(labelled, out, targets, unlabelled, few, only, device, quick, threads, **sizes):
    """Pretraining against none, on LABELLED molecules (made by analysis.scd.label_properties)."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    size = replace(QUICK if quick else Size(), **{k: v for k, v in sizes.items() if v is not None})
    labels, parts = 24 if quick else few, splits([a for file in labelled for a in open_frames(file)])
    write_parts(out / "data", parts, targets, labels, list(open_frames(unlabelled)) if unlabelled else [])
    study = Study(out, size, targets, labels, parts, parts["test"][:20] if quick else parts["test"], device)
    rows = [row for kind in only or BEGINNINGS for row in study.errors(kind)]
    if only:
        return
    table = summary(rows)
    write_rows(out / "runs.csv", rows)
    write_rows(out / "summary.csv", table)
    draw(out / "summary.png", table)
    for row in table:
        error = f"{row['mae']:.4f} ± {row['stderr']:.4f}"
        click.echo(f"{row['target']:>8} {row['beginning']:<14} {error}  gain over scratch {row['gain_percent']:.1f} %")


if __name__ == "__main__":
    main()
