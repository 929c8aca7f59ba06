"""A group of commands, one file each, loaded only when called, so that its --help imports none of them."""

from importlib import import_module

import click


class LazyGroup(click.Group):
    """``verbs`` maps a name to its line of help; the command ``name`` is ``command`` in module ``prefix + name``,
    with "_" for "-".
    """

    def __init__(self, *args, verbs: dict[str, str], prefix: str, heading: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.verbs, self.prefix, self.heading = verbs, prefix, heading

    def list_commands(self, ctx):
        return list(self.verbs)

    def get_command(self, ctx, name):
        if name not in self.verbs:
            return None
        return import_module(f"{self.prefix}{name.replace('-', '_')}").command

    def format_commands(self, ctx, formatter):
        with formatter.section(self.heading):
            formatter.write_dl(list(self.verbs.items()))
