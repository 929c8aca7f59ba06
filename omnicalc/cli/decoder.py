"""``omnicalc decoder``: decoders of future frames, trained and evaluated; ``omnicalc decode`` uses one."""

import click

from omnicalc.cli.lazy import LazyGroup

VERBS = {  # kept here so that `omnicalc decoder --help` imports none of them
    "train": "Train a decoder from a recipe and a folder of trajectories.",
    "evaluate": "Errors of decoders by horizon, beside those of every baseline.",
}


@click.group(
    name="decoder",
    cls=LazyGroup,
    verbs=VERBS,
    prefix="omnicalc.cli.decoder_",
    heading="Commands",
)
def command():
    """Train and evaluate decoders; use one with `omnicalc decode`."""
