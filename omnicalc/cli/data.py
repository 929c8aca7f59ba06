"""``omnicalc data``: data sets, made or described; one file per verb."""

import click

from omnicalc.cli.lazy import LazyGroup

VERBS = {  # kept here so that `omnicalc data --help` imports none of them
    "build": "Build a data set of a recipe of ours.",
    "split": "Raw QM9, Matbench or LBA files, or labelled frames, to a training file with a split.",
    "subset": "Take a part of many frames, spread over classes and molecules.",
}


@click.group(
    name="data",
    cls=LazyGroup,
    verbs=VERBS,
    prefix="omnicalc.cli.data_",
    heading="Commands",
)
def command():
    """Data sets to train on and to compare with."""
