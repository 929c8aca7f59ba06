"""``omnicalc data build``: data sets of our own; one file per recipe."""

import click

from omnicalc.cli.lazy import LazyGroup

VERBS = {  # kept here so that `omnicalc data build --help` imports none of them
    "tg-mini": "Trajectories of small CHNO molecules by GFN2-xTB, for decoders of future frames.",
}


@click.group(
    name="build",
    cls=LazyGroup,
    verbs=VERBS,
    prefix="omnicalc.cli.data_build_",
    heading="Recipes",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command():
    """Build a data set; a build that was stopped goes on when the same command is given again."""
