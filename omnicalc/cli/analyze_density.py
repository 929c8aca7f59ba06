"""`omnicalc analyze density TRAJ`: mass density over time."""

import click

from omnicalc.cli.options import check_of_use
from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="density")
@trajectory_options
@click.option("--profile", metavar="AXIS", help="Also the density along an axis of the cell: a, b or c.")
@click.option("--slice", "slice_width", type=float, default=0.5, show_default=True, metavar="Å", help="Slice width.")
def command(**settings):
    """Mass density and cell of a periodic trajectory, over time.

    Writes density_series.csv, density.json and density.png, and density_profile.csv with --profile.
    """
    from omnicalc.analysis.density import plan_density

    if settings["profile"] is None:
        check_of_use({"slice_width": "without a profile; add --profile c"})
    run(plan_density, **settings)
