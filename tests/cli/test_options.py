"""Options as they were typed."""

import click
from click.testing import CliRunner

from omnicalc.cli.options import Folder, typed_options


@click.command()
@click.argument("files", nargs=-1)
@click.option("--steps", type=int, default=5)
@click.option("--fix", "fixed", default="")
@click.option("--stress/--no-stress", default=None)
@click.option("--no-pbc", is_flag=True)
@click.option("--out", type=Folder())
def command(**given):
    click.echo(typed_options(without=("steps",)))


def said(*words: str) -> str:
    return CliRunner().invoke(command, words).output.strip()


def test_only_what_was_typed_and_in_quotes_where_a_shell_needs_them():
    assert said() == said("a.xyz", "--steps", "3") == ""
    assert said("a.xyz", "--fix", "0 1", "--no-pbc") == "--fix '0 1' --no-pbc"
    assert said("--out", "my run", "--no-stress") == "--no-stress --out 'my run'"
    assert said("--stress") == "--stress"
