"""The ``omnicalc`` command: a group of verbs, one file each, loaded only when called."""

import os
import sys

import click

from omnicalc import __version__
from omnicalc.cli.lazy import LazyGroup

VERBS = {  # verb -> one line of help; kept here so that `omnicalc --help` imports no verb
    "md": "Run molecular dynamics: structure in, trajectory, log, restart and plots out.",
    "analyze": "Turn a trajectory into a table and a figure.",
    "sp": "Energy, forces and stress of structures.",
    "relax": "Relax structures, and their cells, to the minima below them.",
    "models": "List the weights on this machine, or show the card of one.",
    "train": "Train a potential from a recipe.",
    "decode": "Later frames of a molecule at once, by a decoder: no integration in between.",
    "decoder": "Train and evaluate decoders.",
    "data": "Build data sets to train on.",
    "label": "Energies and forces of structures by quantum chemistry.",
    "evaluate": "Compare a potential with labelled structures.",
    "committee": "Add a committee to weights, so that they know how sure they are.",
    "bench": "Time a potential on water boxes, with its force error beside it.",
    "embed": "Embeddings of structures by SCD weights, and a map of them.",
    "doctor": "Check the installation: packages, device, kernel, weights, a short self-test.",
}


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    prefix="omnicalc.cli.",
    heading="Commands",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="omnicalc")
def group():
    """Molecular simulation with machine-learned potentials.

    Start with: omnicalc md water.xyz, then omnicalc analyze rdf traj.dcd
    """


def main() -> None:
    """Entry point: every verb goes through one border, where errors become one message and an exit code."""
    from omnicalc.cli.border import at_border

    os.environ["MPLBACKEND"] = "agg"  # a notebook hands its own on to commands, and matplotlib reads it when imported
    sys.exit(at_border(_run))


def _run() -> object:
    from omnicalc.errors import InputError

    if not __debug__:  # ASE's reader of extended XYZ takes a line from the file inside an assert
        raise InputError(
            "Python runs with -O or PYTHONOPTIMIZE, which leaves out assertions: ASE misreads structures without them. "
            "Type: unset PYTHONOPTIMIZE"
        )
    return group.main(prog_name="omnicalc", standalone_mode=False)
