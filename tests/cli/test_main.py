"""The command itself: quick, light, and one line per error."""

import subprocess
import sys
import time

import pytest

from omnicalc.cli import VERBS

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


@pytest.mark.parametrize(("words", "limit"), [(["--help"], 0.4), (None, 0.2)])
def test_quick(words, limit):
    """The best of a few, against a limit with room for a busy machine."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        process = python("import omnicalc") if words is None else omnicalc(*words)
        times.append(time.perf_counter() - start)
        assert process.returncode == 0
    assert min(times) < 3 * limit


def test_errors_are_one_line_and_exit_code_2():
    process = omnicalc("sp", "nowhere.xyz")
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("error: nowhere.xyz: no such file") and process.stderr.count("\n") == 1
    assert "Traceback" not in process.stderr


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        __import__("omnicalc").nonsense  # noqa: B018
    assert omnicalc("nonsense").returncode == 2
