"""``omnicalc data build``: data sets of our own; a recipe in TOML, or a builder with a file of its own."""

import click

from omnicalc.cli.lazy import LazyGroup

VERBS = {  # kept here so that `omnicalc data build --help` imports none of them
    "recipe": "Labelled structures of a recipe; what `omnicalc data build RECIPE` does.",
    "tg-mini": "Trajectories of small CHNO molecules by GFN2-xTB, for decoders of future frames.",
}


@click.group(
    name="build",
    cls=LazyGroup,
    verbs=VERBS,
    prefix="omnicalc.cli.data_build_",
    heading="Recipes",
    otherwise="recipe",
    no_args_is_help=True,
    subcommand_metavar="RECIPE | COMMAND ...",
)
def command():
    """Build a data set; a build that was stopped goes on when the same command is given again."""
