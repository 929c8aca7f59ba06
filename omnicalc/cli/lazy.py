"""A group of commands, one file each, loaded only when called, so that its --help imports none of them."""

from importlib import import_module
from itertools import pairwise

import click

from omnicalc.errors import InputError


class LazyGroup(click.Group):
    """``verbs`` maps a name to its line of help; the command ``name`` is ``command`` in module ``prefix + name``,
    with "_" for "-". The verb ``otherwise`` may be left out: a first word that is no verb is its first argument.
    """

    def __init__(self, *args, verbs: dict[str, str], prefix: str, heading: str, otherwise: str | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.verbs, self.prefix, self.heading, self.otherwise = verbs, prefix, heading, otherwise

    def parse_args(self, ctx, args):
        if self.otherwise and self._is_left_out(args, ctx):
            args = [self.otherwise, *args]
        return super().parse_args(ctx, args)

    def _is_left_out(self, args, ctx) -> bool:
        if not args:
            return not self.no_args_is_help
        return args[0] not in self.verbs and args[0] not in ctx.help_option_names

    def resolve_command(self, ctx, args):
        name, command, rest = super().resolve_command(ctx, args)
        if not isinstance(command, click.Group):  # which looks at what its own commands are given
            _refuse_empty(command, rest)
        return name, command, rest

    def list_commands(self, ctx):
        return list(self.verbs)

    def get_command(self, ctx, name):
        if name not in self.verbs:
            return None
        return import_module(f"{self.prefix}{name.replace('-', '_')}").command

    def format_commands(self, ctx, formatter):
        with formatter.section(self.heading):
            formatter.write_dl(list(self.verbs.items()))


def _refuse_empty(command: click.Command, words: list[str]) -> None:
    """InputError for an empty text: of an unset shell variable, which would leave an option as if not given, or mean
    the folder one is in.
    """
    options = (each for each in command.params if isinstance(each, click.Option) and not each.is_flag)
    names = {name for option in options for name in option.opts}
    for before, word in pairwise(["", *words]):
        name, equals, value = word.partition("=")
        if equals and name in names:
            before, word = name, value
        if word.strip():
            continue
        if before in names:
            raise InputError(f"{before} is empty; give it a value, or leave {before} out")
        raise InputError("an argument is empty; give a name, or leave it out")
