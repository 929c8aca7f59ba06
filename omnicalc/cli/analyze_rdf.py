"""`omnicalc analyze rdf TRAJ`: trajectory in, CSV, JSON and figure out."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from omnicalc.cli.options import Folder

_PLAIN_EVERY = 10.0  # s between lines of progress where there is no terminal


@click.command(name="rdf")
@click.argument("trajectory", metavar="TRAJ", type=click.Path(path_type=Path))
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    metavar="A-B",
    help="Elements such as O-H; repeat for more. Default: all pairs of up to four elements, O-O first.",
)
@click.option(
    "--top",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Topology. Default: topology.pdb beside "
    "TRAJ, else a file of TRAJ's own name (.pdb, .psf, .gro, .xyz, ...).",
)
@click.option("--start", type=int, help="First frame, counted from 0; negative counts from the end.")
@click.option("--stop", type=int, help="Frame to stop before, as in a Python slice.")
@click.option("--step", type=int, help="Use every STEP-th frame.")
@click.option(
    "--bin", "bin_width", type=float, default=0.02, show_default=True, metavar="Å", help="Bin width."
)
@click.option(
    "--rmax",
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
    "--blocks", type=int, default=10, show_default=True, help="Blocks of frames for error bars, 5 or more."
)
@click.option(
    "--compare",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RDF",
    help="Another RDF to draw "
    "and tabulate beside this one: its folder, rdf.json or rdf_A-B.csv; repeat for more.",
)
@click.option(
    "--label", help="Name of this curve in the figure, and in later comparisons. Default: the file name."
)
@click.option(
    "--out", type=Folder(), metavar="DIR", help="Where to write. Default: beside TRAJ."
)
def command(
    trajectory, pairs, top, start, stop, step, bin_width, rmax, exclude_molecule, blocks, compare, label, out
):
    """Radial distribution functions of a trajectory.

    Writes rdf_A-B.csv for each pair, rdf.json and rdf.png. Run again, it replaces its own files; any other
    file is left alone.
    """
    from omnicalc.analysis.rdf_run import run_rdf

    with _progress() as progress:
        report = run_rdf(
            trajectory,
            list(pairs),
            top=top,
            start=start,
            stop=stop,
            step=step,
            bin_width=bin_width,
            r_max=rmax,
            exclude_molecule=exclude_molecule,
            n_blocks=blocks,
            compare=list(compare),
            label=label,
            out=out,
            progress=progress,
        )
    click.echo("\n".join(report.lines))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line every ten seconds elsewhere; nothing for what is done at once."""
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("frames", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _PlainProgress:
    def __init__(self):
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _PLAIN_EVERY:
            self._last = time.monotonic()
            click.echo(f"{done} of {total} frames", err=True)
