"""`omnicalc analyze rdf TRAJ`: trajectory in, CSV, JSON and figure out."""

from pathlib import Path

import click

from omnicalc.cli.trajectory_options import run, timeless_options


@click.command(name="rdf")
@timeless_options
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    metavar="A-B",
    help="Elements such as O-H; repeat for more. Default: all pairs of up to four elements, O-O first.",
)
@click.option(
    "--select",
    "selections",
    nargs=2,
    multiple=True,
    metavar="SEL SEL",
    help="A pair of selections such as 'resname MG' 'name OP1 OP2'; repeat for more.",
)
@click.option("--bin", "bin_width", type=float, default=0.02, show_default=True, metavar="Å", help="Bin width.")
@click.option(
    "--rmax",
    "r_max",
    type=float,
    metavar="Å",
    help="Longest distance. Default and limit: half the smallest cell height of any frame used.",
)
@click.option(
    "--exclude-molecule",
    is_flag=True,
    help="Leave out pairs inside one molecule (bonds guessed by "
    "distance in the first frame used), as measured O-H and H-H do.",
)
@click.option(
    "--compare",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RDF",
    help="Another RDF to draw and tabulate beside this one: its folder, rdf.json or rdf_A-B.csv; repeat for more.",
)
@click.option("--label", help="Name of this curve in the figure, and in later comparisons. Default: the file name.")
def command(**settings):
    """Radial distribution functions of a trajectory.

    Writes rdf_A-B.csv for each pair, rdf.json and rdf.png. Names of selections are shortened to what fits a file
    name, and numbered where they repeat; rdf.json has them as given. Run again, it replaces its own files; any
    other file is left alone.
    """
    from omnicalc.analysis.rdf import plan_rdf

    for name in ("pairs", "selections", "compare"):
        settings[name] = list(settings[name])
    run(plan_rdf, **settings)
