"""``omnicalc models import``: published weights from files on this machine."""

from pathlib import Path

import click

SMOOTH = click.option(
    "--smooth",
    is_flag=True,
    help="Without the neighbour cap and without the jump of the softmax maximum, so that the energy is continuous; "
    "'-smooth' is appended to the tag.",
)
ZERO = click.option(
    "--zero-references",
    is_flag=True,
    help="Heads without a table of reference energies get 0 eV for every element, as in the release.",
)


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The config.yaml published with the weights. [default: config.yaml beside FILE; for .ckpt: settings in FILE]",
)
@click.option("--as", "name", required=True, metavar="NAME:TAG", help="Name and tag to use them by, as ubio-s3:24m.")
@SMOOTH
@ZERO
def command(file, config_file, name, smooth, zero_references):
    """Import a published checkpoint FILE: convert it once and keep it under a name.

    UBio-MolFM's reproduce the release, neighbour cap included, unless --smooth is given; their config.yaml is needed.
    AllScAIP's and SCD's are known by what they are, and hold their settings.

    \b
    omnicalc models import molfm-v1p5-stage-3.pt --config config.yaml --as ubio-s3:24m
    omnicalc models import AllScAIP-OMol102M-md-cons.pt --as allscaip:md-cons
    omnicalc models import last.ckpt --as scd:pcq  (ct-scd-pcq or ct-scd-amp)
    """
    from omnicalc.model_text import imported
    from omnicalc.published.import_file import import_file

    click.echo(imported(import_file(file, config_file, name, smooth=smooth, zero_references=zero_references)))
