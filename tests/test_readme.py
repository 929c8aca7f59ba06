"""The README is run: its first command after installation, its Python blocks, and the commands its table names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BUNDLED = any((ROOT / "omnicalc" / "weights").glob("ubio-s3-small-*"))

pytestmark = pytest.mark.skipif(not BUNDLED, reason="no bundled weights yet")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the examples, as a user sees it who works in a clone."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(arguments: list[str], folder: Path) -> str:
    """Standard output of a command, with this interpreter's scripts in place of .venv/bin."""
    scripts = Path(sys.executable).parent
    program = arguments[0].replace(".venv/bin/", f"{scripts}{os.sep}")
    done = subprocess.run([program, *arguments[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_first_command(checkout):
    steps = [part.split() for part in blocks("sh")[0].strip().split("&&")]
    install, simulate, analyze = steps[1], steps[2], steps[3]
    assert install[:2] == [".venv/bin/pip", "install"]
    told = run(simulate, checkout)
    assert "omnicalc analyze rdf water_md/traj.dcd" in told
    run(analyze, checkout)
    out = checkout / "water_md"
    for name in (
        "traj.dcd",
        "topology.pdb",
        "log.csv",
        "run.json",
        "energy.png",
        "temperature.png",
        "rdf.png",
        "rdf.json",
    ):
        assert (out / name).stat().st_size > 0, name


def test_python_blocks(checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    found = blocks("python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_commands_in_the_table_exist():
    from click.testing import CliRunner

    from omnicalc.cli import group

    verbs = re.findall(r"^\| `omnicalc (\w+)", README, flags=re.MULTILINE)
    assert len(verbs) >= 8
    for verb in set(verbs):
        assert CliRunner().invoke(group, [verb, "--help"]).exit_code == 0, verb


def written_commands(page: Path) -> list[list[str]]:
    """The words after `omnicalc` of every command in a page's sh blocks and code spans."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("\n", " ")
    lines = [*blocks.splitlines(), *re.findall(r"`([^`]+)`", prose)]
    parts = [part for line in lines for part in re.split(r"&&|;|\|", line.split("#")[0])]
    found = [re.search(r"(?:^|[\s/])omnicalc\s+([a-z-].*)", part) for part in parts]
    return [match[1].split() for match in found if match]


def options_of(command: click.Command) -> set[str]:
    """Of a command; of a group, whose first word may be left out, those of all its commands."""
    context, found = click.Context(command), {"--help"}
    if isinstance(command, click.Group):
        found |= set().union(*(options_of(command.get_command(context, n)) for n in command.list_commands(context)))
    return found.union(*([*p.opts, *p.secondary_opts] for p in command.params))


PAGES = sorted(p for pattern in ("*.md", "data/*.md", "analysis/**/*.md") for p in ROOT.glob(pattern))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_every_page_have_the_options_they_are_written_with(page):
    from omnicalc.cli import group

    for words in written_commands(page):
        command, rest = group, list(words)
        while isinstance(command, click.Group) and rest:
            verb = command.get_command(click.Context(command), rest[0])
            if verb is None:
                break
            command, rest = verb, rest[1:]
        assert command is not group or words[0].startswith("-"), f"no such verb: omnicalc {' '.join(words)}"
        given = {word.split("=")[0].rstrip(",.:)") for word in rest if word.startswith("--")}
        assert given <= options_of(command), f"omnicalc {' '.join(words)}: {given - options_of(command)}"


def test_a_command_that_is_not_there_would_be_noticed(tmp_path):
    (tmp_path / "page.md").write_text("`omnicalc md water.xyz --nonsense 3`\n```sh\nomnicalc train \\\n  --wrong\n```")
    assert written_commands(tmp_path / "page.md") == [["train", "--wrong"], ["md", "water.xyz", "--nonsense", "3"]]
    from omnicalc.cli.md import command

    assert "--steps" in options_of(command) and "--nonsense" not in options_of(command)


def test_examples_run():
    told = subprocess.run([sys.executable, ROOT / "examples" / "ase_dynamics.py"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "ubio-s3:small@" in told.stdout
    change = float(re.search(r"changed by (-?[\d.]+) meV", told.stdout)[1])
    assert abs(change) < 20  # 0.1 meV per atom


def test_water_box_script_makes_whole_molecules():
    """The start of examples/make_water_box.py, without its dynamics: 64 intact waters that do not overlap."""
    import importlib.util

    import numpy as np

    spec = importlib.util.spec_from_file_location("make_water_box", ROOT / "examples" / "make_water_box.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    box = script.oriented_waters(np.random.default_rng(64))
    assert box.get_chemical_formula() == "H128O64"
    distances = box.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    molecule = np.arange(len(box)) // 3
    assert distances[molecule[:, None] != molecule].min() > 1.2
