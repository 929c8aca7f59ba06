"""``omnicalc models``: the weights there are, the card of one, and new ones from elsewhere."""

import click

from omnicalc.cli.lazy import LazyGroup

VERBS = {  # kept here so that `omnicalc models --help` imports none of them
    "show": "List the models, or show the card of one; what `omnicalc models [NAME]` does.",
    "fetch": "Fetch published weights by name from their public hub.",
    "import": "Import published weights from files on this machine.",
}


@click.group(
    name="models",
    cls=LazyGroup,
    verbs=VERBS,
    prefix="omnicalc.cli.models_",
    heading="Commands",
    otherwise="show",  # without a word too
    no_args_is_help=False,
    subcommand_metavar="[NAME | COMMAND ...]",
)
def command():
    """List the models, or show the card of NAME (name, name:tag, name:tag@version, or a weights folder).

    `omnicalc models --verify [NAME]` compares the sha256 of the weights with their cards.
    """
