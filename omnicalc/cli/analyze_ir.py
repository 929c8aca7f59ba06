"""`omnicalc analyze ir TRAJ`: infrared spectrum."""

from pathlib import Path

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="ir")
@trajectory_options
@click.option("--charges", metavar="E=Q,...", help="Fixed charges of all elements, e, such as 'O=-0.834,H=0.417'.")
@click.option(
    "--dipoles",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Dipoles of all frames: columns dipole_x, dipole_y, dipole_z in e Å.",
)
@click.option("--resolution", type=float, metavar="CM-1", help="Width of a line. Default: 10, or what the run allows.")
@click.option("--max-wavenumber", type=float, default=4500.0, show_default=True, metavar="CM-1", help="Where to end.")
def command(**settings):
    """Infrared spectrum from the fluctuations of the total dipole, by fixed charges or by dipoles of a table.

    Frames should be 4 fs apart or less where hydrogen vibrates. Writes ir_spectrum.csv, ir_correlation.csv, ir.json and
    ir.png.
    """
    from omnicalc.analysis.ir import plan_ir

    run(plan_ir, **settings)
