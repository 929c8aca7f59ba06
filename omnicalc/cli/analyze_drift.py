"""`omnicalc analyze drift RUN`: energy conservation."""

from pathlib import Path

import click

from omnicalc.cli.options import Folder


@click.command(name="drift")
@click.argument("source", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--atoms", type=click.IntRange(min=1), help="Number of atoms, where no run.json tells.")
@click.option("--skip-ps", type=float, default=0.0, show_default=True, metavar="PS", help="Leave out the beginning.")
@click.option("--blocks", "n_blocks", type=int, default=10, show_default=True, help="Blocks for error bars, 5 or more.")
@click.option("--out", type=Folder(), metavar="DIR", help="Where to write. Default: beside the log.")
def command(source, out, **settings):
    """Drift of the total energy of a run, with its error, from log.csv.

    RUN is the folder of a run, or its log.csv. Writes drift_blocks.csv, drift.json and drift.png.
    """
    from omnicalc.analysis.drift import energy_drift, log_path
    from omnicalc.analysis.verbs import Claim

    result = energy_drift(source, **settings)
    written = Claim("drift", tuple(result.tables), log_path(source), out).write(result)
    click.echo("\n".join(written.lines))
