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
from tests.command import omnicalc


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


XTB, UNCERTAIN = ("label", "a.xyz", "--out", "b.extxyz", "--method", "gfn2-xtb"), ("--from-uncertain", "run")


@pytest.mark.parametrize(
    "words, message",
    [
        ((*XTB, "--grid", "5"), "--grid has no say with gfn2-xtb.*--method functional/basis, or leave --grid out"),
        ((*XTB, "--convergence", "1e-7"), "--convergence has no say with gfn2-xtb"),
        ((*XTB, "--model", "m"), "--model has no say without a run.*add --from-uncertain"),
        ((*XTB, "--count", "20"), "--count has no say without a run"),  # as it is by default, but typed
        ((*XTB, "--above", "1"), "--above has no say without a run"),
        ((*XTB, "--scheduler", "tcp://h:1", "--processes", "2"), "--processes has no say.*leave out --scheduler"),
        (("label", "--out", "b", *UNCERTAIN, "--max-atoms", "9"), "--max-atoms has no say without structure files"),
        (("label", "--out", "b", "--free-atoms", "H", "--processes", "2"), "--processes has no say with --free-atoms"),
        (("label", "--out", "b", "--free-atoms", "H", "--scheduler", "h"), "--scheduler has no say with --free-atoms"),
        (("data", "build", "ubio-xtb", "--out", "b", "--scheduler", "h", "--workers", "2"), "--processes has no say"),
        (("data", "build", "tg-mini", "--list", "--frames", "9"), "--frames has no say with --list"),
        (("relax", "a.xyz", "--smax", "0.1"), "--smax has no say while the cell rests; add --relax-cell isotropic"),
        (("analyze", "density", "a.dcd", "--slice", "1"), "--slice has no say without a profile; add --profile c"),
        (("embed", "a.xyz", "--out", "b", "--seed", "1"), "--seed has no say where nothing is drawn; add --untrained"),
        (("train", "--from", "w", "--data", "a", "--out", "b", "--rank", "2"), "--rank has no say.*add --train lora"),
        (("md", "a.xyz", "--beads", "4", "--thermostat-time", "9"), "--thermostat-time has no say with --beads"),
    ],
)
def test_what_would_change_nothing_is_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        omnicalc(*words)
    assert not os.listdir()


@pytest.mark.parametrize(
    "words",
    [
        (*XTB, "--above", "nan"),
        ("data", "subset", "a.xyz", "--out", "b.extxyz", "--max-force", "nan"),
        ("decoder", "evaluate", "atom", "--data", "a", "--from", "nan"),
        ("train", "--from", "w", "--data", "a", "--out", "b", "--rate", "inf"),
        ("embed", "a.xyz", "--out", "b", "--untrained", "--seed", str(2**63)),
        ("embed", "a.xyz", "--out", "b", "--untrained", "--seed", "-1"),
        ("committee", "ubio-s3", "a.xyz", "--out", "b", "--seed", str(2**64)),
        ("decoder", "train", "atom-small", "--data", "a", "--out", "b", "--seed", str(2**64)),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert f"Invalid value for '{words[-2]}'" in omnicalc(*words, code=2)
    assert not os.listdir()
