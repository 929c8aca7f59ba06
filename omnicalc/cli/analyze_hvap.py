"""`omnicalc analyze hvap LIQUID GAS`: heat of vaporisation from two runs."""

from pathlib import Path

import click

from omnicalc.cli.options import Folder


@click.command(name="hvap")
@click.argument("liquid", type=click.Path(path_type=Path))
@click.argument("gas", type=click.Path(path_type=Path))
@click.option("--temperature", type=float, metavar="K", help="Of the RT term. Default: the liquid's.")
@click.option("--skip-ps", type=float, default=0.0, show_default=True, metavar="PS", help="Leave out the beginnings.")
@click.option("--blocks", "n_blocks", type=int, default=10, show_default=True, help="Blocks for error bars, 5 or more.")
@click.option("--out", type=Folder(), metavar="DIR", help="Where to write. Default: into LIQUID.")
def command(liquid, gas, out, **settings):
    """Heat of vaporisation from the folders of two runs: the liquid, and one molecule of gas.

    Writes hvap_phases.csv, hvap.json and hvap.png.
    """
    from omnicalc.analysis.drift import log_path
    from omnicalc.analysis.hvap import heat_of_vaporisation
    from omnicalc.analysis.verbs import Claim

    result = heat_of_vaporisation(liquid, gas, **settings)
    written = Claim("hvap", tuple(result.tables), log_path(liquid), out).write(result)
    click.echo("\n".join(written.lines))
