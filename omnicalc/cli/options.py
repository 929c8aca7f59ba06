"""Kinds of options that several verbs share, and options as they were typed."""

import math
import os
import shlex
from collections.abc import Container, Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from omnicalc.errors import InputError
from omnicalc.files import no_folder_for, not_writable

SEED = click.IntRange(0, 2**63 - 1)  # as far as torch counts
THREADS = click.IntRange(1, 1024)  # of the CPU; OpenMP crashes when asked for tens of thousands
CHARGE = (
    "Total charge in e; a PDB file with formal charges needs it. [default: from the file (charge= of extended XYZ, "
    "charges of atoms in SDF), else 0]"
)
PROCESSES = click.option(
    "--processes",
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on this machine.",
)
SCHEDULER = click.option(
    "--scheduler", help="Address of a Dask scheduler, as in tcp://host:8786, in place of processes on this machine."
)
_UNITS = {"fs": 1.0, "ps": 1000.0}
_FILES = {".cif", ".csv", ".db", ".dcd", ".extxyz", ".gro", ".gz", ".json", ".log", ".npz", ".pdb", ".png", ".toml"}
_FILES |= {".traj", ".trr", ".txt", ".xtc", ".xyz"}  # endings of what people mean as a file


class FiniteRange(click.FloatRange):
    """A range of numbers without nan, which compares as inside of any, and without infinity."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class Folder(click.Path):
    """A folder to write into; a name that is no folder yet and ends as a file does is refused."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value, param, ctx):
        path = bare = super().convert(value, param, ctx)
        while bare.suffix.lower() in _FILES and not path.exists():
            bare = bare.with_suffix("")
        if bare != path:
            name = param.opts[0]
            raise InputError(f"{name} {path}: a folder for several files is needed, not a file; as in {name} {bare}")
        return path


class NewFile(click.Path):
    """A file to write that is not there yet, in a folder that can be written to."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value, param, ctx):
        path = super().convert(value, param, ctx)
        if reason := no_folder_for(path):
            raise InputError(f"{param.opts[0]} {path}: {reason}")
        why = f"{path} is there already" if os.path.lexists(path) else not_writable(path.parent)
        return _free(path, why, "file", param)


class NewFolder(Folder):
    """A folder to write into that is empty or not there yet, and can be written to or made."""

    def convert(self, value, param, ctx):
        path = super().convert(value, param, ctx)
        why = not_writable(path)
        if why is None and path.exists() and any(path.iterdir()):
            why = f"{path} is not empty"
        return _free(path, why, "folder", param)


def _free(path: Path, why: str | None, what: str, param: click.Parameter) -> Path:
    if why is not None:
        raise InputError(f"{why}; give another {what} with {param.opts[0]}")
    return path


class Time(click.ParamType):
    """A time as in 500fs, 0.5ps or 500 (fs)."""

    name = "TIME"

    def convert(self, value, param, ctx):
        if isinstance(value, float):
            return value
        text = value.strip().lower()
        unit = next((u for u in _UNITS if text.endswith(u)), "")
        try:
            number = float(text.removesuffix(unit)) * _UNITS.get(unit, 1.0)
        except ValueError:
            number = float("nan")
        if not 0 < number < float("inf"):
            self.fail(f"'{value}' is no time above 0; give one as in 500fs or 0.5ps", param, ctx)
        return number


def check_of_use(no_say: Mapping[str, str]) -> None:
    """Refuse an option that was typed but that has no say in this call: another one was meant.

    ``no_say``: name of a parameter -> where it has no say, and what to type so that it has.
    """
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in no_say and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            name = option.opts[0]
            raise InputError(f"{name} has no say {no_say[option.name]}, or leave {name} out")


def typed_options(without: Container[str] = ()) -> str:
    """The options of this call as they were typed, for a command to type next; flags too, arguments not.

    ``without``: names of parameters to leave out.
    """
    context = click.get_current_context()
    words = []
    for option in context.command.params:
        typed = context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not typed or option.name in without:
            continue
        value = context.params[option.name]
        if option.is_flag:
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            words += [option.opts[0], str(value)]
    return shlex.join(words)
