"""`omnicalc analyze hbonds TRAJ`: hydrogen bonds, their occupancy and lifetimes."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="hbonds")
@trajectory_options
@click.option("--distance", type=float, default=2.5, show_default=True, metavar="Å", help="Longest H...A.")
@click.option("--angle", type=float, default=120.0, show_default=True, metavar="DEG", help="Smallest angle D-H...A.")
@click.option("--donor-acceptor", is_flag=True, help="--distance is that of D...A (3.0 to 3.5 Å are usual then).")
@click.option("--donors", default="N,O,F", show_default=True, metavar="SEL", help="Atoms whose hydrogens bond.")
@click.option("--acceptors", default="N,O,F", show_default=True, metavar="SEL", help="Atoms that accept.")
@click.option(
    "--site",
    "sites",
    multiple=True,
    metavar="D->A",
    help="Follow a bond by name, such as 'VAL9-NH->SAR7-CO', or by two selections; repeat for more.",
)
@click.option(
    "--tolerance", "tolerance_ps", type=float, default=0.0, metavar="PS", help="Gaps up to this long end no bond."
)
@click.option(
    "--max-lag", "max_lag_ps", type=float, metavar="PS", help="Longest lag of S(t) and C(t). Default: half of the run."
)
def command(**settings):
    """Hydrogen bonds of a trajectory: how many, which, how long.

    D-H...A is a bond when H...A is shorter than --distance and the angle at H is wider than --angle. Writes
    hbonds_series.csv (per frame), hbonds_pairs.csv (occupancies), hbonds_lifetimes.csv, hbonds.json, hbonds.png.
    """
    from omnicalc.analysis.hbonds import plan_hbonds

    settings["sites"] = list(settings["sites"])
    run(plan_hbonds, **settings)
