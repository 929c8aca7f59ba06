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
    help="The flat config.yaml published with the weights. [default: config.yaml beside FILE]",
)
@click.option("--as", "name", required=True, metavar="NAME:TAG", help="Name and tag to use them by, as ubio-s3:24m.")
@SMOOTH
@ZERO
def command(file, config_file, name, smooth, zero_references):
    """Import the published UBio-MolFM checkpoint FILE (.pt): convert it once and keep it under a name.

    It reproduces the release, neighbour cap included, unless --smooth is given.
    """
    from omnicalc.model_text import imported
    from omnicalc.published_weights import import_published

    config_file = config_file or file.with_name("config.yaml")
    done = import_published(file, config_file, name, smooth=smooth, zero_references=zero_references)
    click.echo(imported(done))
