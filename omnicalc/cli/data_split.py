"""``omnicalc data split``: raw benchmark files to labelled structures with a split, for ``omnicalc train``."""

from pathlib import Path

import click

from omnicalc.cli.options import NewFile

FORMATS = ("auto", "qm9", "matbench", "lba", "frames")


@click.command(name="split")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=NewFile(), required=True, help="File to write, .extxyz or .extxyz.gz.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="auto", show_default=True)
@click.option("--property", "key", help="Number in the frames to learn; without it, energies and forces.")
@click.option("--train", type=click.IntRange(min=1), default=950, show_default=True)
@click.option("--valid", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--test", type=click.IntRange(min=0), help="At most so many, drawn at random. [default: all the rest]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--exclude", type=click.Path(path_type=Path), help="uncharacterized.txt of QM9.")
def command(source, out, kind, key, train, valid, test, seed, exclude):
    """Read SOURCE (QM9's folder or tar, a Matbench .json.gz, an LBA folder, or labelled frames) and split it.

    The defaults are the MD17 protocol: 950 training and 50 validation structures. Copies of one geometry all go to one
    part, which then has more.
    """
    from omnicalc.data.raw import read_raw, write_split

    frames, target = read_raw(source, kind, exclude=exclude)
    counts = write_split(out, frames, key or target, train=train, valid=valid, test=test, seed=seed)
    what = key or target or "energies and forces"
    click.echo(f"{out}: {what}; " + ", ".join(f"{n} {name}" for name, n in counts.items()))
