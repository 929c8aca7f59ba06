"""Kinds of options that several verbs share."""

from pathlib import Path

import click


class Folder(click.Path):
    """A folder to write into. An empty text, as from an unset shell variable, is none: it would mean the folder one
    is in.
    """

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value, param, ctx):
        if value == "":
            self.fail("an empty text is no folder; '.' is the one you are in", param, ctx)
        return super().convert(value, param, ctx)
