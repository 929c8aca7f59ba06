"""``omnicalc data build``: data sets of our own; a recipe in TOML, or a builder with a file of its own."""

import click

from omnicalc.cli.lazy import LazyGroup

VERBS = {  # kept here so that `omnicalc data build --help` imports none of them
    "recipe": "Labelled structures of a recipe; what `omnicalc data build RECIPE` does.",
    "tg-mini": "Trajectories of small CHNO molecules by GFN2-xTB, for decoders of future frames.",
}


class RecipeUnlessVerb(LazyGroup):
    """A group whose first word may be left out: ``build RECIPE`` is ``build recipe RECIPE``."""

    def parse_args(self, ctx, args):
        if args and args[0] not in self.verbs and args[0] not in ctx.help_option_names:
            args = ["recipe", *args]
        return super().parse_args(ctx, args)


@click.group(
    name="build",
    cls=RecipeUnlessVerb,
    verbs=VERBS,
    prefix="omnicalc.cli.data_build_",
    heading="Recipes",
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="RECIPE | COMMAND ...",
)
def command():
    """Build a data set; a build that was stopped goes on when the same command is given again."""
