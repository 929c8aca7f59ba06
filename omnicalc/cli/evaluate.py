"""``omnicalc evaluate``: errors of a potential on labelled structures."""

import json
import math
from functools import partial
from pathlib import Path

import click

from omnicalc.cli.options import NewFile

_OTHER_ZERO = 500.0  # meV/atom; no potential of this level of theory is so far off on average


@click.command(name="evaluate")
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--head", help="Level of theory. [default: the first head of the model that knows all elements]")
@click.option("--split", help="Only frames whose key `split` has this value, e.g. valid.")
@click.option("--only", metavar="KEY=VALUE,...", multiple=True, help="Only frames whose key has one of these values.")
@click.option("--by", help="Errors by the values of this key of the frames, e.g. config_type or molecule.")
@click.option("--plot", type=NewFile(), help="Write a parity plot, a PNG file.")
@click.option(
    "--batch-atoms",
    "--atoms",
    "atoms_per_batch",
    type=click.IntRange(min=1),
    help="Atoms computed at once. [default: 1000]",
)
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]))
@click.option("--device", default="auto", show_default=True)
@click.option("--rotations", type=int, help="Also turn every frame N times, and measure how far its results spread.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, head, split, only, by, plot, atoms_per_batch, dtype, device, rotations, as_json):
    """Compare MODEL with the energies and forces in DATA, and with the stresses where there are any.

    DATA: extended XYZ (also .gz), ASE-LMDB, SPICE HDF5, MD17 npz, or any file that ASE reads with labels. Heads
    with a committee also say how sure they are, and how well that fits their errors.
    """
    from omnicalc.data import only as by_keys
    from omnicalc.data.readers import open_frames
    from omnicalc.errors import InputError
    from omnicalc.registry import load_potential

    frames = open_frames(data)
    from omnicalc.cli.progress import progress_by_unit
    from omnicalc.committee import measured_spread
    from omnicalc.evaluation import ATOMS_PER_BATCH, evaluate, labelled_frames

    potential = load_potential(model, device=device, dtype=dtype)
    with progress_by_unit() as progress:
        tell = partial(click.echo, err=True)
        frames = labelled_frames(frames, split, str(data), tell, partial(progress, "frames read"))
    frames = by_keys.only(frames, only, str(data))
    if rotations is not None:
        from omnicalc.rotations import mean_spread, rotation_matrices, rotation_spread

        rotation_matrices(rotations)  # refused before anything long
    if by is not None and not any(by in a.info for a in frames):
        known = ", ".join(sorted(set().union(*(a.info for a in frames)))) or "none"
        raise InputError(f"no frame of '{data}' has the key '{by}'; keys: {known}")
    with progress_by_unit() as progress:
        count, most = lambda done: progress("frames", done, len(frames)), atoms_per_batch or ATOMS_PER_BATCH
        found = evaluate(potential, frames, head, count, most, spread=True)
    groups = found.by(by) if by is not None else {}
    if plot is not None:
        from omnicalc.parity import draw_parity

        draw_parity(found, plot, by or "config_type")
    errors, spread, committee = found.errors(), None, measured_spread(found)
    if rotations is not None:
        spread = mean_spread([rotation_spread(potential, atoms, rotations, head=found.head) for atoms in frames])
    if as_json:
        more = {"by": None if by is None else {name: e.to_dict() for name, e in groups.items()}}
        more |= {"spread": None if spread is None else spread.to_dict(), "committee": committee}
        table = {"model": potential.name_resolved, "head": found.head, **errors.to_dict()}
        click.echo(json.dumps(table | {key: value for key, value in more.items() if value is not None}))
        return
    click.echo(f"{potential.name_resolved}, head {found.head}, {errors.frames} frames of {data}")
    _say_errors(errors)
    if spread is not None:
        click.echo(
            f"spread over {spread.rotations} orientations  energy {spread.energy:.3f} meV/atom  forces "
            f"{spread.force:.2f} meV/Å (root mean square)"
        )
    if committee is not None:
        click.echo(
            f"committee  energy_std {committee['energy_std']:.3f} meV/atom  forces_std {committee['forces_std']:.2f} "
            f"meV/Å (means); calibration error {100 * committee['calibration_error']:.0f} %"
        )
    if groups:
        _say_groups(groups, by, bool(errors.stresses))
    if plot is not None:
        click.echo(f"plot: {plot}")


def _say_errors(errors) -> None:
    """Errors over all frames."""
    click.echo(f"energy  MAE {errors.energy_mae:.3f}  RMSE {errors.energy_rmse:.3f} meV/atom")
    if abs(errors.energy_mean) > _OTHER_ZERO:
        click.echo(
            f"        labels are {-errors.energy_mean / 1e3:+.1f} eV/atom off the head on average: another level of "
            "theory, zero of energy or unit; only the next line says something"
        )
    if not math.isnan(errors.relative_energy_mae):
        click.echo(
            f"        relative to the mean of the same atoms: MAE {errors.relative_energy_mae:.3f} meV/atom; "
            f"from one frame to the next: MAE {errors.delta_energy_mae:.1f} meV"
        )
    click.echo(f"forces  MAE {errors.force_mae:.2f}  RMSE {errors.force_rmse:.2f} meV/Å")
    if errors.stresses:
        of = f", of {errors.stresses} frames" if errors.stresses < errors.frames else ""
        click.echo(f"stress  MAE {errors.stress_mae:.3f} meV/Å^3 ({errors.stress_mae_gpa:.4f} GPa){of}")


def _say_groups(groups: dict, by: str, stresses: bool) -> None:
    """A row of errors for each value of the key ``by``."""
    click.echo(
        f"\n{'by ' + by:<24} frames  energy MAE  relative  forces MAE    RMSE" + ("  stress MAE" if stresses else "")
    )
    for name, e in groups.items():
        click.echo(
            f"{name[:24]:<24} {e.frames:6d}  {e.energy_mae:10.3f}  {e.relative_energy_mae:8.3f}  "
            f"{e.force_mae:10.2f}  {e.force_rmse:6.2f}" + (f"  {e.stress_mae:10.3f}" if stresses else "")
        )
