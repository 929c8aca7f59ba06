"""Progress of long work: lines where there is no terminal, a bar above which lines stand where there is one."""

import os
import pty
import subprocess
import sys

import pytest

from omnicalc.cli import progress as module
from omnicalc.cli.progress import progress_by_unit, progress_of


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the module sees, moved by hand."""
    seconds = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds[0])
    return seconds


def test_what_is_done_soon_says_nothing(capsys, clock):
    with progress_of("frames") as progress:
        for k in range(10):
            progress(k, 10)
    assert capsys.readouterr() == ("", "")


def test_a_line_now_and_then_with_the_time_that_is_left(capsys, clock):
    with progress_of("frames") as progress:
        for k in range(31):
            progress(k, 100, "2 failed" if k > 20 else "")
            clock[0] += 2.0
    assert capsys.readouterr().err.splitlines() == [
        "10 of 100 frames, 3.0 min left",
        "20 of 100 frames, 2.7 min left",
        "30 of 100 frames, 2.3 min left, 2 failed",
    ]


def test_several_units_are_counted_each_for_itself(capsys, clock):
    with progress_by_unit() as progress:
        progress("frames", 1, 2)
        clock[0] += 30.0
        progress("steps", 500, 1000)  # of a run that goes on: nothing is known of its pace
        clock[0] += 30.0
        progress("steps", 600, 1000)
    assert capsys.readouterr().err.splitlines() == ["500 of 1000 steps", "600 of 1000 steps, 2.0 min left"]


def test_on_a_terminal_lines_still_go_where_standard_output_was_sent(tmp_path):
    code = (
        "import click\nfrom omnicalc.cli.progress import progress_by_unit\n"
        "with progress_by_unit() as progress:\n"
        "    progress('frames', 1, 2)\n    click.echo('a line')\n    progress('steps', 3, 7, 'a note')\n"
    )
    ours, theirs = pty.openpty()
    try:
        with (tmp_path / "out").open("w") as out:
            plain = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
            subprocess.run([sys.executable, "-c", code], stdout=out, stderr=theirs, check=True, env=plain)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (tmp_path / "out").read_text() == "a line\n" and "a line" not in shown
    assert "frames" in shown and "3/7" in shown and "a note" in shown
