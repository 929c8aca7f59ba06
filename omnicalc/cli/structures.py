"""How ``relax`` and ``sp`` speak of many structures."""

import shlex

import click

from omnicalc.cli.options import typed_options

_NAMED = 10
BEYOND = (
    "energies or forces are beyond all bounds, as where atoms are too close or the model does not know such a structure"
)


def these(numbers: list[int]) -> str:
    """Structures by their number in summary.csv, as many as fit into a line."""
    names = ", ".join(map(str, numbers[:_NAMED])) + ", ..." * (len(numbers) > _NAMED)
    return f"{len(numbers)} structure{'s' * (len(numbers) > 1)} ({names} in summary.csv)"


def end_if_stopped(outcome, verb: str, structures) -> None:
    """Where a signal stopped the work: the command that goes on, and the exit code of a process that it ended."""
    if outcome.signal is not None and outcome.done < outcome.structures:
        click.echo(f"go on with:\n  {to_type(verb, structures, typed_options(without=('resume',)), '--resume')}")
        raise SystemExit(128 + outcome.signal)


def to_type(verb: str, structures, *options: str) -> str:
    """A command to type next."""
    return " ".join([f"omnicalc {verb}", shlex.join(map(str, structures)), *filter(None, options)])
