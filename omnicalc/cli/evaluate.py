"""``omnicalc evaluate``: errors of a potential on labelled structures."""

import json
from pathlib import Path

import click


@click.command(name="evaluate")
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--head", help="Level of theory. [default: the first head of the model that knows all elements]")
@click.option("--split", help="Only frames whose key `split` has this value, e.g. valid.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]))
@click.option("--device", default="auto", show_default=True)
@click.option("--rotations", type=int, help="Also turn every frame N times, and measure how far its results spread.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model, data, head, split, dtype, device, rotations, as_json):
    """Compare MODEL with the energies and forces in DATA (any file that ASE reads)."""
    from omnicalc.registry import load_potential
    from omnicalc.structure_file import read_structures

    frames = read_structures(data)
    from omnicalc.evaluation import evaluate, labelled_frames

    potential = load_potential(model, device=device, dtype=dtype)
    frames = labelled_frames(frames, split, str(data))
    if rotations is not None:
        from omnicalc.rotations import mean_spread, rotation_matrices, rotation_spread

        rotation_matrices(rotations)  # refused before anything long
    chosen, errors = evaluate(potential, frames, head)
    spread = None
    if rotations is not None:
        spread = mean_spread([rotation_spread(potential, atoms, rotations, head=chosen) for atoms in frames])
    if as_json:
        found = {"model": potential.name_resolved, "head": chosen, **errors.to_dict()}
        click.echo(json.dumps(found if spread is None else {**found, "spread": spread.to_dict()}))
        return
    click.echo(f"{potential.name_resolved}, head {chosen}, {errors.frames} frames of {data}")
    click.echo(f"energy  MAE {errors.energy_mae:.3f}  RMSE {errors.energy_rmse:.3f} meV/atom")
    click.echo(f"forces  MAE {errors.force_mae:.2f}  RMSE {errors.force_rmse:.2f} meV/Å")
    if spread is not None:
        click.echo(
            f"spread over {spread.rotations} orientations  energy {spread.energy:.3f} meV/atom  forces "
            f"{spread.force:.2f} meV/Å (root mean square)"
        )
