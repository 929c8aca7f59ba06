"""The command itself: quick, light, and one line per error."""

import os
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner

from omnicalc.cli import VERBS, group

HEAVY = "{'torch', 'numpy', 'ase', 'MDAnalysis', 'matplotlib', 'vesin'}"


def python(code: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)


def omnicalc(*words: str) -> subprocess.CompletedProcess:
    return python("from omnicalc.cli import main; main()", *words)


def test_import_and_help_load_nothing_heavy():
    code = "import sys, omnicalc; dir(omnicalc); omnicalc.__version__;"
    assert python(f"{code} print({HEAVY} & set(sys.modules))").stdout == "set()\n"
    code = "import sys; from omnicalc.cli import group\ntry: group(['--help'])\nexcept SystemExit: pass\n"
    said = python(f"{code}print({HEAVY} & set(sys.modules))").stdout
    assert said.splitlines()[-1] == "set()"
    for verb in VERBS:
        assert f"  {verb} " in said


def cpu_time() -> float:
    """Seconds of all child processes that have ended, whatever else the machine was busy with."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_cpu_time_is_that_of_the_child():
    before = cpu_time()
    python("import time; time.sleep(0.3)")
    slept = cpu_time() - before
    python("import time\nwhile time.process_time() < 0.3: pass")
    assert slept < 0.2 and cpu_time() - before - slept > 0.29


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.4), (None, 0.2)])
def test_quick(words, limit):
    """CPU time, user and system, of the best of a few."""
    times = []
    for _ in range(5):
        start = cpu_time()
        process = python("import omnicalc") if words is None else omnicalc(*words)
        times.append(cpu_time() - start)
        assert process.returncode == 0
    assert min(times) < limit


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_figures_do_not_depend_on_the_backend_of_a_notebook(monkeypatch, backend):
    """Notebooks set MPLBACKEND for the commands that are typed in them; matplotlib refuses it where it is unknown."""
    monkeypatch.setenv("MPLBACKEND", backend)
    code = "import matplotlib.figure"
    refused = "is not a valid value for backend" in python(code).stderr
    assert refused or backend.startswith("module://")  # matplotlib 3.8 takes any module
    process = python(f"from omnicalc.cli import main\ntry: main()\nexcept SystemExit: {code}", "--version")
    assert process.returncode == 0, process.stderr


def test_only_the_command_itself_chooses_a_backend(monkeypatch):
    """`group` may be called inside a process with figures of its own."""
    monkeypatch.setenv("MPLBACKEND", "svg")
    CliRunner().invoke(group, ["models", "--help"])
    assert os.environ["MPLBACKEND"] == "svg"


def test_errors_are_one_line_and_exit_code_2():
    process = omnicalc("sp", "nowhere.xyz")
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("error: nowhere.xyz: no such file") and process.stderr.count("\n") == 1
    assert "Traceback" not in process.stderr


def test_python_m_is_the_same_command():
    process = subprocess.run([sys.executable, "-m", "omnicalc", "--version"], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, omnicalc("--version").stdout)
    process = subprocess.run([sys.executable, "-m", "omnicalc", "sp", "nowhere.xyz"], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (2, omnicalc("sp", "nowhere.xyz").stderr)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        __import__("omnicalc").nonsense  # noqa: B018
    assert omnicalc("nonsense").returncode == 2


@pytest.mark.parametrize("flag", ["-O", "-OO"])
def test_without_assertions_nothing_is_read(flag):
    """ASE's reader of extended XYZ begins one line too early then."""
    process = subprocess.run([sys.executable, flag, "-m", "omnicalc", "sp", "a.xyz"], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ") and process.stderr.endswith("unset PYTHONOPTIMIZE\n")
