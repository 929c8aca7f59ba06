"""``omnicalc embed``: embeddings of structures by SCD weights, and a map of them."""

import math
from pathlib import Path

import click

from omnicalc.cli.options import SEED, NewFolder, check_of_use

ARRAYS, MAP = "embeddings.npz", "latent_map.png"
TAKEN = ("atoms", "embeddings", "coordinates", "file", "allow_pickle")  # in the npz, or by NumPy that writes it


@click.command(name="embed")
@click.argument("structures", type=click.Path(path_type=Path))
@click.option("--model", default="scd:pretrained", show_default=True, help="SCD weights: name, name:tag or folder.")
@click.option("--out", type=NewFolder(), required=True, help="Folder for embeddings.npz and latent_map.png.")
@click.option("--colour", "keys", multiple=True, metavar="KEY", help="Number in the frames to colour by, or energy.")
@click.option("--method", type=click.Choice(["pca", "umap"]), default="pca", show_default=True)
@click.option("--untrained", is_flag=True, help="A row for the same network with random weights beside it.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of random weights, and of UMAP.")
def command(structures, model, out, keys, method, untrained, seed):
    """Embeddings of the frames in STRUCTURES (any file that ASE reads), and a map coloured by size and properties."""
    import numpy as np

    from omnicalc.errors import InputError
    from omnicalc.structure_file import read_structures

    if method == "pca" and not untrained:
        check_of_use({"seed": "where nothing is drawn; add --untrained or --method umap"})
    if taken := sorted({*keys} & {*TAKEN}):
        raise InputError(
            f"--colour {taken[0]}: {ARRAYS} needs this name for itself (the map by number of atoms is always drawn); "
            "store the numbers under another name in the frames"
        )
    frames = read_structures(structures)
    colours = {"atoms": np.array([float(len(a)) for a in frames])}
    colours |= {key: np.array([_number(a, key, k) for k, a in enumerate(frames)]) for key in keys}

    from omnicalc.analysis.latent_map import FEWEST, draw_map
    from omnicalc.cli.progress import progress_of
    from omnicalc.embedding import embed, untrained_twin
    from omnicalc.files import made_folder, write_atomically
    from omnicalc.registry import load_potential

    potential = load_potential(model)
    with progress_of("structures") as progress:
        vectors = {potential.name_resolved: embed(frames, potential, progress=progress)}
        if untrained:
            vectors["untrained"] = embed(frames, untrained_twin(potential, seed), progress=progress)
    arrays = {"embeddings": next(iter(vectors.values())), **colours}
    with made_folder(out):
        if mapped := len(frames) >= FEWEST:
            points = draw_map(out / MAP, vectors, colours, method=method, seed=seed)
            arrays["coordinates"] = next(iter(points.values()))

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomically(out / ARRAYS, save)
    click.echo(f"{len(frames)} structures, {arrays['embeddings'].shape[1]} numbers each: {out / ARRAYS}")
    click.echo(f"map: {out / MAP}" if mapped else f"no map, which needs {FEWEST} structures")


def _number(atoms, key: str, k: int) -> float:
    from omnicalc.errors import InputError

    labels = {} if atoms.calc is None else atoms.calc.results
    value = atoms.info.get(key, labels.get(key))
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"frame {k} has no finite number under '{key}' to colour by")
    return found
