"""`omnicalc analyze cn TRAJ`: coordination numbers and residence times."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="cn")
@trajectory_options
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    metavar="A-B",
    help="Count B around A, elements such as Na-O; repeat for more. Default: O around every ion, else O-O.",
)
@click.option("--centre", metavar="SEL", help="Atoms to count around: a selection such as 'resname MG'.")
@click.option("--around", metavar="SEL", help="Atoms to count: a selection such as 'water and name O'.")
@click.option("--cutoff", type=float, metavar="Å", help="Radius of the shell. Default: first minimum of g(r).")
@click.option("--include-molecule", is_flag=True, help="Count pairs inside one molecule too.")
@click.option(
    "--tolerance",
    "tolerance_ps",
    type=float,
    metavar="PS",
    help="Absences up to this long do not end a residence.  [default: 0.5]",
)
@click.option(
    "--max-lag", "max_lag_ps", type=float, metavar="PS", help="Longest lag of S(t). Default: half of what is used."
)
def command(**settings):
    """Coordination numbers of a trajectory, over time, with residence times.

    A residence ends when the atom has left the shell for longer than --tolerance. S(t) is the fraction of
    neighbours that stay for t without leaving; its integral is one residence time, the time present over the
    number of departures the other. Writes cn_series.csv, cn_distribution.csv, cn_survival.csv, cn.json, cn.png.
    """
    from omnicalc.analysis.coordination import plan_cn

    settings["pairs"] = list(settings["pairs"])
    run(plan_cn, **settings)
