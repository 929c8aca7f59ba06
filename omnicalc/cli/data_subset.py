"""``omnicalc data subset``: a part of many frames, spread over classes and molecules."""

from pathlib import Path

import click


@click.command(name="subset", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Extended XYZ file, .extxyz or .extxyz.gz.")
@click.option("--count", type=click.IntRange(min=1), help="At most so many frames.")
@click.option("--max-atoms", type=click.IntRange(min=1), help="Leave larger frames out.")
@click.option("--max-force", type=click.FloatRange(min=0), help="Leave frames with a larger force out, eV/Å.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(files, out, count, max_atoms, max_force, seed):
    """Take frames of FILES, each once, in turn from every config_type, and there in turn from every molecule.

    Every first part of the result is spread over all classes, as labelling may be stopped at any time.
    """
    from collections import Counter

    from omnicalc.errors import InputError
    from omnicalc.structure_file import read_structures

    if out.exists():
        raise InputError(f"'{out}' is there already; choose another --out")
    frames = [atoms for path in files for atoms in read_structures(path)]

    from omnicalc.data.subset import subset, write_frames

    chosen = subset(frames, count, max_atoms, seed, max_force)
    if not chosen:
        raise InputError(f"none of {len(frames)} frames is within --max-atoms and --max-force")
    write_frames(out, chosen)
    shares = Counter(str(atoms.info.get("config_type", "no config_type")) for atoms in chosen)
    click.echo(f"{len(chosen)} of {len(frames)} frames: {', '.join(f'{k} {n}' for k, n in sorted(shares.items()))}")
