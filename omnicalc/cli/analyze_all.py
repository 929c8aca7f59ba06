"""`omnicalc analyze all RUN`: every analysis that a trajectory allows, in one pass."""

import click

from omnicalc.cli.progress import progress_of
from omnicalc.cli.trajectory_options import trajectory_options


@click.command(name="all")
@trajectory_options
@click.option("--only", multiple=True, metavar="VERB", help="Only this analysis; repeat for more.")
@click.option("--skip", multiple=True, metavar="VERB", help="Not this analysis; repeat for more.")
def command(**settings):
    """Every analysis that a trajectory allows, in one pass over its frames.

    Each verb writes its own files, as it does alone with its default settings; what the trajectory does not allow
    is left out and named.
    """
    from omnicalc.analysis.every import write_all

    with progress_of("frames") as progress:
        everything = write_all(progress=progress, **settings)
    click.echo("\n".join(everything.lines))
