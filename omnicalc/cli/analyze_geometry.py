"""`omnicalc analyze geometry TRAJ`: bonds, angles, dihedrals, Ramachandran."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="geometry")
@trajectory_options
@click.option("--select", metavar="SEL", help="Only inside these atoms, e.g. 'not water'. Default: all.")
@click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="I,J[,K[,L]]",
    help="Follow a distance, angle or dihedral of atoms counted from 0; repeat for more.",
)
def command(**settings):
    """Bond lengths, angles and dihedrals by kind, and phi, psi and omega of peptides.

    Writes geometry_kinds.csv, geometry_histograms.csv, geometry_backbone.csv, geometry_ramachandran.csv,
    geometry_measures.csv, geometry.json and geometry.png.
    """
    from omnicalc.analysis.geometry import plan_geometry

    settings["measures"] = list(settings["measures"])
    run(plan_geometry, **settings)
