"""`omnicalc analyze`: a group of analyses, one file each, loaded only when called."""

from importlib import import_module

import click

ANALYSES = {  # verb -> one line of help; kept here so that `omnicalc analyze --help` imports none of them
    "rdf": "Radial distribution functions and coordination numbers, beside experiment where one is known.",
}


class _LazyAnalyses(click.Group):
    def list_commands(self, ctx):
        return list(ANALYSES)

    def get_command(self, ctx, name):
        if name not in ANALYSES:
            return None
        return import_module(f"omnicalc.cli.analyze_{name}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Analyses"):
            formatter.write_dl(list(ANALYSES.items()))


@click.group(name="analyze", cls=_LazyAnalyses)
def command():
    """Turn a trajectory into a table and a figure."""
