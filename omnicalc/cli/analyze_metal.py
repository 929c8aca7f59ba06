"""`omnicalc analyze metal TRAJ`: the first shell of metal ions."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="metal")
@trajectory_options
@click.option("--ion", metavar="SEL", help="Element or selection. Default: the only metal ion there is, else Mg.")
@click.option("--ligands", default="O", show_default=True, metavar="SEL", help="Atoms that may bind the ion.")
@click.option("--cutoff", type=float, metavar="Å", help="Radius of the first shell. Default: usual for the ion.")
@click.option(
    "--tolerance",
    "tolerance_ps",
    type=float,
    metavar="PS",
    help="A ligand away for longer has exchanged.  [default: 0.5]",
)
@click.option(
    "--max-lag", "max_lag_ps", type=float, metavar="PS", help="Longest lag of S(t). Default: half of what is used."
)
def command(**settings):
    """Sites of metal ions: distances, angles, inner and outer sphere, octahedrality, exchanges.

    Writes metal_series.csv, metal_sites.csv, metal_distances.csv, metal_angles.csv, metal_exchanges.csv,
    metal.json and metal.png.
    """
    from omnicalc.analysis.metal import plan_metal

    run(plan_metal, **settings)
