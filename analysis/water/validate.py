"""Validate molecular dynamics of liquid water: energy drift, temperatures, time step, O-O peak.

    python analysis/water/validate.py nve RUN
    python analysis/water/validate.py temperature RUN
    python analysis/water/validate.py timestep STRUCTURE --out DIR
    python analysis/water/validate.py rdf RUN FRAMES
    python analysis/water/validate.py frames FRAMES

RUN is a folder of ``omnicalc md``. Each verb prints its numbers with errors and methods, and writes them as
JSON beside a figure. README.md has the runs to make, and what the numbers mean.
"""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path

import click
import figures
import numpy as np
from kinetic_bias import OH_STRETCH, bias_from_forces, bias_from_stretch, fit_square, resolution
from report import Check, blocks_line, claim, estimate, finish, table
from runs import Run, make_run
from sampled import sampled_temperatures

from omnicalc.analysis.energy import drift, mean_with_error
from omnicalc.analysis.rdf_curves import Value, peak_difference
from omnicalc.analysis.rdf_table import show
from omnicalc.analysis.results import fingerprint
from omnicalc.cli.border import at_border
from omnicalc.errors import InputError, WeightsError

DRIFT_LIMIT, DRIFT_AIM = 0.02, 0.005  # meV/atom/ps
TEMPERATURE_LIMIT = 2.5  # standard errors
PEAK_LIMIT, HEIGHT_LIMIT = 0.03, 0.2  # Å, and in g
FORCE_FRAMES = 100  # that the expected bias of the time step is taken from

_HELP = {
    "skip": "Leave out the first part of a run, ps.",
    "blocks": "Blocks for errors, 5 or more.",
    "out": "Where to write. [default: in the folder of the run]",
    "friction": "1/fs; strong, as the bias does not depend on it and the temperature forgets faster.",
    "nuclei": "How FRAMES were sampled; `frames` tells it from their forces.",
}
_path = click.Path(path_type=Path)
_skip = click.option("--skip-ps", type=float, default=1.0, show_default=True, help=_HELP["skip"])
_blocks = click.option("--blocks", type=int, default=10, show_default=True, help=_HELP["blocks"])
_out = click.option("--out", type=_path, help=_HELP["out"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Validate molecular dynamics of liquid water; see README.md beside this script."""


@group.command()
@click.argument("run", type=_path)
@_skip
@_blocks
@_out
def nve(run: Path, skip_ps: float, blocks: int, out: Path | None) -> None:
    """Drift of the total energy of an NVE run."""
    run = Run.open(run, "nve", skip_ps)
    results = claim("nve", out or run.folder, run.log.path)
    energy = 1000 * run.log.total / run.atoms
    found, kelvin = drift(run.log.time_ps, energy, blocks), mean_with_error(run.log.temperature, blocks)
    limits = (DRIFT_LIMIT, DRIFT_AIM)
    checks = [Check("drift", found.value, found.stderr, limit, "meV/atom/ps") for limit in limits]
    lines = [
        run.about(),
        f"drift of the total energy   {found.value:+.5f} ± {found.stderr:.5f} meV/atom/ps",
        f"fluctuation about the line  {found.spread:.5f} meV/atom (root mean square)",
        f"kinetic temperature         {kelvin.value:.1f} ± {kelvin.stderr:.1f} K",
        *(check.line for check in checks),
        f"method: least-squares line through block means; {blocks_line(found, run.log)}",
    ]
    content = {
        "drift_meV_per_atom_ps": estimate(found, run.log),
        "temperature_K": estimate(kelvin, run.log),
        "checks": [check.as_dict() for check in checks],
    }
    finish(results, run.summary() | content, figures.draw_nve(run.log.time_ps, energy, found), lines)


@group.command()
@click.argument("run", type=_path)
@click.option("--frames", type=int, default=200, show_default=True, help="Frames to use, evenly spaced.")
@click.option("--model", help="Where the run's weights are, if not where run.json says.")
@_skip
@_blocks
@_out
def temperature(run: Path, frames: int, model: str | None, skip_ps: float, blocks: int, out: Path | None) -> None:
    """Kinetic and configurational temperature of an NVT run."""
    from omnicalc.md.observables import configurational_temperature

    if frames < 2 * blocks:
        raise InputError(f"--frames {frames} is too few for {blocks} blocks; give {2 * blocks} or more")
    run = Run.open(run, "nvt", skip_ps)
    results = claim("temperature", out or run.folder, run.log.path)
    kinetic = mean_with_error(run.log.temperature, blocks)
    elements, positions = run.positions(frames)
    bound = run.bind(elements, positions[0], model)
    configurational = Value(*configurational_temperature(positions, bound, blocks=blocks))
    target, h = run.settings["temperature_K"], run.settings["timestep_fs"]
    bias = bias_from_forces(positions, elements, bound, target) * h**2
    away = {
        "kinetic": (kinetic.value - target) / kinetic.stderr,
        "kinetic_less_expected_bias": (kinetic.value - target - bias) / kinetic.stderr,
        "configurational": (configurational.value - target) / configurational.stderr,
    }
    check = Check("configurational less target", away["configurational"], 0.0, TEMPERATURE_LIMIT, "standard errors")
    rows = [
        ("temperature", "K", "less target (K)", "in standard errors"),
        ("kinetic", _kelvin(kinetic), f"{kinetic.value - target:+.2f}", f"{away['kinetic']:+.1f}"),
        (
            f"  less BAOAB's bias at {h:g} fs, {bias:+.2f} K",
            _kelvin(Value(kinetic.value - bias, kinetic.stderr)),
            f"{kinetic.value - target - bias:+.2f}",
            f"{away['kinetic_less_expected_bias']:+.1f}",
        ),
        (
            "configurational",
            _kelvin(configurational),
            f"{configurational.value - target:+.2f}",
            f"{away['configurational']:+.1f}",
        ),
    ]
    lines = [
        run.about(),
        f"target {target:g} K",
        *table(rows),
        check.line,
        f"method, kinetic: mean of log.csv; {blocks_line(kinetic, run.log)}",
        "method, bias: harmonic, -T h² <w²> / 4 with <w²> = <F²/m> / kT in the frames",
        f"method, configurational: <F²> / <Laplacian of U>, float64, {len(positions)} frames, differences of "
        f"0.005 Å along a random direction in each; jackknife over {blocks} blocks of frames",
    ]
    content = {
        "target_K": target,
        "kinetic_K": estimate(kinetic, run.log),
        "configurational_K": vars(configurational),
        "frames": len(positions),
        "expected_kinetic_bias_K": bias,
        "deviations_in_standard_errors": away,
        "checks": [check.as_dict()],
    }
    figure = figures.draw_temperature(run.log, kinetic, configurational, target)
    finish(results, run.summary() | content, figure, lines)


@group.command()
@click.argument("structure", type=_path)
@click.option("--model", default="ubio-s3", show_default=True, help="Name or folder of the weights.")
@click.option("--timesteps", default="0.25,0.5,1.0", show_default=True, help="In fs, with commas.")
@click.option("--ps", "length", type=float, default=10.0, show_default=True, help="Length of each run, ps.")
@click.option("--temperature", "kelvin", type=float, default=300.0, show_default=True, help="K.")
@click.option("--friction", type=float, default=0.1, show_default=True, help=_HELP["friction"])
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first run; others count on.")
@click.option("--out", type=_path, required=True, help="Folder for runs and results.")
@_skip
@_blocks
def timestep(
    structure: Path, model: str, timesteps: str, length: float, kelvin: float, friction: float, seed: int,
    out: Path, skip_ps: float, blocks: int,
) -> None:  # fmt: skip
    """Kinetic temperature against the time step. Makes its own runs, and goes on with those in --out."""
    from omnicalc.registry import load_potential
    from omnicalc.structure_file import read_structure

    steps_fs = _parse_timesteps(timesteps)
    if not 0 <= skip_ps < length:
        raise InputError(f"--ps {length:g} with --skip-ps {skip_ps:g} leaves nothing; give a longer --ps")
    atoms, potential = read_structure(structure), load_potential(model)
    results = claim("timestep", out, structure)
    runs = []
    for k, h in enumerate(steps_fs):
        folder = out / f"timestep_{h:g}fs"
        settings = {"temperature_K": kelvin, "friction_per_fs": friction, "seed": seed + k}
        bound = make_run(atoms, potential, structure, folder, length, timestep_fs=h, **settings)
        runs.append(Run.open(folder, "nvt", skip_ps))
    elements, positions = runs[0].positions(FORCE_FRAMES)
    expected = bias_from_forces(positions, elements, bound, kelvin)
    stretch = bias_from_stretch(elements, kelvin)
    means = [mean_with_error(run.log.temperature, blocks) for run in runs]
    bias = [Value(mean.value - kelvin, mean.stderr) for mean in means]
    fit, chi2 = fit_square(np.array(steps_fs), bias)
    used = float(runs[0].log.time_ps[-1] - runs[0].log.time_ps[0])
    resolved, told = resolution(fit, expected, used)
    rows = [("h (fs)", "kinetic (K)", "less target (K)", "fit", "from forces", "O-H stretch only")]
    for h, mean, b in zip(steps_fs, means, bias, strict=True):
        others = (f"{a * h * h:+.2f}" for a in (fit.value, expected, stretch))
        rows.append((f"{h:g}", _kelvin(mean), _kelvin(b, "+"), *others))
    lines = [
        f"{structure}: {len(atoms)} atoms, {potential.name_resolved}, {kelvin:g} K, friction {friction:g} "
        f"1/fs, {length:g} ps each, {used:g} used",
        *table(rows),
        f"fit a h²: a = {_kelvin(fit, '+')} K/fs², chi² {chi2:.1f} for {len(bias) - 1} degrees of freedom",
        f"expected: a = {expected:+.2f} K/fs² from forces, {stretch:+.2f} from O-H stretches alone",
        told,
        "expected is BAOAB in harmonic wells, m<v²> = kT (1 - (w h)²/4) for a mode of frequency w:",
        f"  from forces: mean w² of all 3N modes = <F²/m> / kT in {len(positions)} frames of the first run",
        f"  O-H stretch: one mode of {OH_STRETCH:g} 1/cm per hydrogen, nothing else",
        *(
            f"method at {h:g} fs: mean of log.csv; {blocks_line(mean, run.log)}"
            for h, mean, run in zip(steps_fs, means, runs, strict=True)
        ),
    ]
    content = {
        "runs": [
            {"timestep_fs": h, "kinetic_K": estimate(mean, run.log), "bias_K": vars(b), **run.summary()}
            for h, mean, b, run in zip(steps_fs, means, bias, runs, strict=True)
        ],
        "fit_K_per_fs2": vars(fit) | {"chi2": chi2, "resolved": resolved},
        "expected_from_forces_K_per_fs2": expected,
        "expected_from_stretch_K_per_fs2": stretch,
    }
    finish(results, content, figures.draw_timestep(np.array(steps_fs), bias, fit, expected, stretch), lines)


@group.command()
@click.argument("run", type=_path)
@click.argument("frames", type=_path)
@click.option(
    "--nuclei",
    type=click.Choice(["quantum", "classical", "unknown"]),
    default="classical",
    show_default=True,
    help=_HELP["nuclei"],
)
@_skip
@_blocks
@_out
def rdf(run: Path, frames: Path, nuclei: str, skip_ps: float, blocks: int, out: Path | None) -> None:
    """First O-O peak of an NVT run against labelled FRAMES of the training theory."""
    from omnicalc.analysis.experiment import experiment_for
    from omnicalc.analysis.rdf import plan_rdf
    from omnicalc.analysis.rdf_compare import load_curves
    from omnicalc.analysis.verbs import run_verb

    run = Run.open(run, "nvt", skip_ps)
    out = out or run.folder / "rdf_vs_frames"
    results = claim("rdf", out, run.log.path, figure=False)
    about = f"{frames.name}, {nuclei} nuclei"
    settings, chosen = {"pairs": ["O-O"], "n_blocks": blocks}, run.frames()
    theirs = run_verb(plan_rdf, frames, label=about, out=out / "frames", **settings)
    settings |= {"start": chosen.start, "stop": chosen.stop, "compare": [out / "frames"]}
    label = f"{run.record['model']['name']}, classical nuclei"
    ours = run_verb(plan_rdf, run.folder / "traj.dcd", label=label, out=out, **settings)
    mine, reference = ours.result.pairs[0], load_curves(out / "frames")["O", "O"]
    difference = peak_difference(mine, reference)
    if difference is None:
        raise InputError("no first O-O peak stands out in the run or in the frames; give longer ones")
    if any(value.stderr is None for value in difference):
        raise InputError("the run or the frames are too short for error bars; ten frames of each are needed")
    limits = (("dr", PEAK_LIMIT, "Å"), ("dg", HEIGHT_LIMIT, ""))
    checks = [
        Check(name, d.value, d.stderr, limit, unit) for d, (name, limit, unit) in zip(difference, limits, strict=True)
    ]
    measured = experiment_for(("O", "O"), ours.result.composition)
    rows = [
        ("first O-O peak", "r (Å)", "height"),
        ("run", *map(show, mine.peak)),
        ("frames", *map(show, reference.peak)),
        ("run less frames", *(show(d, "+") for d in difference)),
    ]
    if measured is not None:
        rows.append((measured.label, *(f"{x:.3f}" for x in measured.peak)))
    origin = _origin(run.record["model"], frames)
    lines = [
        run.about(),
        *table(rows),
        *(check.line for check in checks),
        f"nuclei: the run moves classical nuclei; the frames were sampled with {nuclei} ones"
        + (", so the difference includes what quantum nuclei do to the peak" if nuclei == "quantum" else ""),
        origin,
        "method: polynomial fitted to the top of the peak, bins of 0.02 Å; jackknife over "
        f"{ours.result.sampling.n_blocks} blocks of the run ({len(ours.result.sampling)} frames) and "
        f"{theirs.result.sampling.n_blocks} of the frames ({len(theirs.result.sampling)}), errors in quadrature;",
        "  frames that lie shuffled hide their correlation from blocks: their error is then a lower bound",
    ]
    peaks = {"run": mine.peak, "frames": reference.peak, "run_less_frames": difference}
    content = {
        "first_peak": {name: {"r_angstrom": vars(r), "g": vars(g)} for name, (r, g) in peaks.items()},
        "experiment": None if measured is None else {"label": measured.label, "peak": measured.peak},
        "nuclei": {"run": "classical", "frames": nuclei},
        "frames_file": fingerprint(frames),
        "origin": origin,
        "checks": [check.as_dict() for check in checks],
    }
    finish(results, run.summary() | content, None, lines)
    click.echo("\n".join(f"  {file}" for file in ours.files))


@group.command(name="frames")
@click.argument("frames", type=_path)
@click.option("--model", default="ubio-s3", show_default=True, help="Weights that know the theory of FRAMES.")
@click.option("--head", help="Its head. [default: the first that knows the elements]")
@click.option("--most", type=click.IntRange(min=10), default=100, show_default=True, help="Frames to use, evenly.")
@click.option("--out", type=_path, required=True)
def frames_(frames: Path, model: str, head: str | None, most: int, out: Path) -> None:
    """Temperature that labelled FRAMES were sampled at, by element: equal where nuclei are classical."""
    from omnicalc.data.readers import open_frames
    from omnicalc.evaluation import labelled_frames
    from omnicalc.registry import load_potential
    from omnicalc.systems import Systems

    results = claim("frames", out, frames, figure=False)
    labelled = labelled_frames(open_frames(frames), None, str(frames))
    chosen = labelled[:: math.ceil(len(labelled) / most)]
    if len(chosen) < 10:
        raise InputError(f"{len(chosen)} frames in '{frames}'; at least 10 are needed for an error")
    first = chosen[0]
    for k, atoms in enumerate(chosen):
        if list(atoms.numbers) != list(first.numbers) or not np.allclose(atoms.cell, first.cell):
            raise InputError(f"frame {k} of those used from '{frames}' has other atoms or another cell than the first")
    bound = load_potential(model, dtype="float64").bind(Systems.from_atoms(first), head=head)
    found = sampled_temperatures(chosen, bound)
    lines = [
        f"{frames}: {len(chosen)} frames of {first.get_chemical_formula()}, second derivatives by {model}",
        *table([("sampled by", "temperature (K)"), *((name, _kelvin(value)) for name, value in found.items())]),
        "classical nuclei give every element the same temperature; quantum ones give light elements a higher one",
        "method: <F²> / <d²U/dx²>, F the labels; jackknife over frames",
    ]
    content = {"sampled_K": {name: vars(value) for name, value in found.items()}, "frames": len(chosen)}
    finish(results, content | {"frames_file": fingerprint(frames)}, None, lines)


def _origin(model: dict, frames: Path) -> str:
    """What the card of the run's weights says of these frames."""
    from omnicalc.registry import resolve

    try:
        card = resolve(model["name"])[1]
    except WeightsError:
        return "origin of the frames: unknown, the weights of the run are not on this machine"
    digest = hashlib.sha256(frames.read_bytes()).hexdigest()
    heads = [s["head"] for s in card.training.get("sources", []) if s.get("sha256") == digest]
    if not heads:
        return f"origin of the frames: not among the training data on the card of {model['name']}"
    theory = next(head.level_of_theory for head in card.heads if head.name == heads[0])
    same = "as the run" if model["head"] in heads else f"but the run has {model['head']}, ANOTHER theory"
    return f"origin of the frames: training data of {model['name']}, head {heads[0]} ({same}): {theory}"


def _parse_timesteps(text: str) -> list[float]:
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if len(found) < 2 or not all(0 < h < math.inf for h in found):
        raise InputError(f"--timesteps {text} given; two or more in fs are needed, as in 0.25,0.5,1.0")
    return found


def _kelvin(value, sign: str = "") -> str:
    return f"{value.value:{sign}.2f} ± {value.stderr:.2f}"


if __name__ == "__main__":
    sys.exit(at_border(lambda: group.main(standalone_mode=False)))
