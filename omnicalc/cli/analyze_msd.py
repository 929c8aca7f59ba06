"""`omnicalc analyze msd TRAJ`: mean squared displacements and diffusion coefficients."""

import click

from omnicalc.cli.trajectory_options import run, trajectory_options


@click.command(name="msd")
@trajectory_options
@click.option("--select", metavar="SEL", help="Only molecules with such an atom, e.g. Na or 'water'. Default: all.")
@click.option("--atoms", is_flag=True, help="Follow atoms, by element, in place of centres of mass of molecules.")
@click.option(
    "--max-lag", "max_lag_ps", type=float, metavar="PS", help="Longest lag. Default: a fifth of what is used."
)
@click.option(
    "--fit",
    "fit_ps",
    type=float,
    nargs=2,
    metavar="PS PS",
    help="Lags between which the line is fitted. Default: the last four fifths.",
)
@click.option(
    "--viscosity", type=float, metavar="MPA_S", help="Of the liquid, for the size correction. Default: water's at T."
)
@click.option("--temperature", type=float, metavar="K", help="For the size correction. Default: the run's.")
@click.option("--keep-com", is_flag=True, help="Leave in the motion of the whole system's centre of mass.")
def command(**settings):
    """Mean squared displacements and diffusion coefficients, with the Yeh-Hummer size correction.

    Positions are unwrapped by nearest images from frame to frame, in boxes that may change. Writes
    msd_curves.csv, msd.json and msd.png.
    """
    from omnicalc.analysis.msd import plan_msd

    run(plan_msd, **settings)
