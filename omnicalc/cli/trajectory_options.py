"""The argument and options that every analysis of a trajectory has, and how such a verb is run."""

from __future__ import annotations

from pathlib import Path

import click

from omnicalc.cli.options import Folder
from omnicalc.cli.progress import progress_of

_DT = click.option(
    "--dt", "dt_ps", type=float, metavar="PS", help="Time between frames of the file. Default: what it says."
)
_OPTIONS = (
    click.option(
        "--top",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Topology. Default: topology.pdb beside TRAJ, else a file of TRAJ's own name (.pdb, .psf, .gro, ...).",
    ),
    click.option("--start", type=int, help="First frame, counted from 0; negative counts from the end."),
    click.option("--stop", type=int, help="Frame to stop before, as in a Python slice."),
    click.option("--step", type=int, help="Use every STEP-th frame."),
    _DT,
    click.option(
        "--blocks",
        "n_blocks",
        type=int,
        default=10,
        show_default=True,
        help="Blocks for error bars, 5 or more; ± is one standard error, and with ten blocks 95 % is 2.26 times that.",
    ),
    click.option("--out", type=Folder(), metavar="DIR", help="Where to write. Default: beside TRAJ."),
)


def trajectory_options(command):
    """TRAJ (a trajectory, or the folder of a run) and the common options, passed on as keywords."""
    return _with(_OPTIONS, command)


def timeless_options(command):
    """The same without --dt, for what does not depend on time."""
    return _with([option for option in _OPTIONS if option is not _DT], command)


def _with(options, command):
    for option in reversed(options):
        command = option(command)
    return click.argument("source", metavar="TRAJ", type=click.Path(path_type=Path))(command)


def run(plan, **settings) -> None:
    """Run one verb, write its files beside the trajectory or into ``out``, and print its table."""
    from omnicalc.analysis.verbs import run_verb

    with progress_of("frames") as progress:
        written = run_verb(plan, progress=progress, **settings)
    click.echo("\n".join(written.lines))
