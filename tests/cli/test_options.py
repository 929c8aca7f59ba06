"""Options as they were typed, and kinds of options."""

import os

import click
import pytest
from click.testing import CliRunner

from omnicalc.cli.data_build_recipe import command as build
from omnicalc.cli.evaluate import command as evaluate
from omnicalc.cli.label import command as label
from omnicalc.cli.options import Folder, NewFile, NewFolder, typed_options
from omnicalc.errors import InputError


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


@click.command()
@click.option("--plot", type=NewFile())
@click.option("--out", type=NewFolder())
def writer(plot, out):
    click.echo(f"{plot} {out}")


def refused(*words: str) -> str:
    error = CliRunner().invoke(writer, words).exception
    assert isinstance(error, InputError)
    return str(error)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()


def test_new_places_are_taken_as_they_are(here):
    assert CliRunner().invoke(writer, ["--plot", "full/p.png", "--out", "new/below"]).output == "full/p.png new/below\n"
    assert CliRunner().invoke(writer, ["--out", "empty"]).output == "None empty\n"
    assert sorted(os.listdir()) == ["empty", "full"]


def test_places_that_are_taken_or_not_there_are_refused(here):
    assert refused("--plot", "full/file") == "full/file is there already; give another file with --plot"
    assert refused("--plot", "empty") == "empty is there already; give another file with --plot"
    assert refused("--plot", "no/p.png").startswith("--plot no/p.png: there is no folder 'no'; make it first")
    assert refused("--out", "full") == "full is not empty; give another folder with --out"
    assert refused("--out", "full/file") == "full/file is a file; give another folder with --out"


def test_places_that_cannot_be_written_to_are_named(here, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert refused("--plot", "full/p.png") == "full cannot be written to; give another file with --plot"
    assert refused("--out", "empty") == "empty cannot be written to; give another folder with --out"


@pytest.mark.parametrize(
    "command, arguments, name, new, old",
    [
        (label, ["a.xyz", "--out", "b"], "processes", "--processes", "--workers"),
        (build, ["ubio-xtb", "--out", "b"], "processes", "--processes", "--workers"),
        (evaluate, ["ubio-s3", "a.xyz"], "atoms_per_batch", "--batch-atoms", "--atoms"),
    ],
)
def test_options_have_one_name_in_all_commands_and_know_their_old_one(command, arguments, name, new, old):
    for option in (new, old):
        assert command.make_context("c", [*arguments, option, "3"]).params[name] == 3
    assert next(p for p in command.params if p.name == name).opts[0] == new  # what messages name
