"""`omnicalc analyze density TRAJ`: mass density over time."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="density")
@trajectory_options
def command(**settings):
    """Mass density and cell of a periodic trajectory, over time.

    Writes density_series.csv, density.json and density.png.
    """
    from omnicalc.analysis.density import plan_density

    run(plan_density, **settings)
