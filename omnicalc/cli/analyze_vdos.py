"""`omnicalc analyze vdos TRAJ`: vibrational density of states."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="vdos")
@trajectory_options
@click.option("--select", metavar="SEL", help="Only these atoms, e.g. 'not water'. Default: all.")
@click.option("--resolution", type=float, metavar="CM-1", help="Width of a line. Default: 10, or what the run allows.")
@click.option("--max-wavenumber", type=float, default=4500.0, show_default=True, metavar="CM-1", help="Where to end.")
@click.option("--positions", is_flag=True, help="Differences of positions even where the file holds velocities.")
def command(**settings):
    """Vibrational density of states, from the velocity autocorrelation function.

    Frames should be 4 fs apart or less where hydrogen vibrates. Writes vdos_spectrum.csv, vdos_vacf.csv, vdos.json
    and vdos.png.
    """
    from omnicalc.analysis.vdos import plan_vdos

    run(plan_vdos, **settings)
