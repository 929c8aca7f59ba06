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
    """Import the published UBio-MolFM checkpoint FILE (.pt): convert it once and keep it under a name.

    It reproduces the release, neighbour cap included, unless --smooth is given. A FILE that ends in .ckpt is a
    published SCD checkpoint (ct-scd-pcq, ct-scd-amp), as in: omnicalc models import last.ckpt --as scd:pcq
    Published AllScAIP checkpoints are known by what they hold, and hold their settings:
    omnicalc models import AllScAIP-OMol102M-md-cons.pt --as allscaip:md-cons
    """
    from omnicalc.model_text import imported

    if file.suffix == ".ckpt":
        _import_scd(file, config_file, name, smooth or zero_references)
        return
    from omnicalc.fairchem_checkpoint import is_fairchem

    if is_fairchem(file):
        from omnicalc.published_allscaip import import_allscaip

        click.echo(imported(import_allscaip(file, name, smooth=smooth, zero_references=zero_references)))
        return
    from omnicalc.published_weights import import_published

    config_file = config_file or file.with_name("config.yaml")
    done = import_published(file, config_file, name, smooth=smooth, zero_references=zero_references)
    click.echo(imported(done))


def _import_scd(file: Path, config_file: Path | None, name: str, options: bool) -> None:
    from omnicalc.errors import InputError
    from omnicalc.published_scd import import_scd

    if options:
        raise InputError("--smooth and --zero-references are for UBio-MolFM checkpoints; SCD ones have no energy")
    done = import_scd(file, name, config_file)
    click.echo(f"{done.card.full_name}: {done.folder}\n{done.card.summary}")
    click.echo(f"{len(done.dropped)} tensors of the training checkpoint were not kept")
