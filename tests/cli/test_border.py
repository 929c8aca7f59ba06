"""The border of the command line: which code and which line come out of what happens inside."""

import errno
import warnings

import click
import pytest

from omnicalc.cli.border import at_border
from omnicalc.errors import OmniCalcWarning, RunError


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def raiser(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RunError("the run stopped"), 2, "error: the run stopped\n"),
        (MemoryError(), 2, "error: out of memory; use a smaller"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), 2, "(20.00 GiB more were wanted)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried to allocate 8589934592 bytes."), 2, "8 GiB"),
        (OSError(errno.ENOSPC, "No space left on device", "log.csv"), 2, "error: log.csv: No space left on device\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (click.Abort(), 130, "stopped\n"),
        (click.UsageError("no such option"), 2, "no such option"),
    ],
)
def test_one_line_and_a_code(capsys, error, code, said):
    assert at_border(raiser(error)) == code
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and out == ""


@pytest.mark.parametrize("defect", [RuntimeError("shapes do not fit"), ValueError("x"), OSError("no number")])
def test_a_defect_keeps_its_traceback(defect):
    with pytest.raises(type(defect)):
        at_border(raiser(defect))


def test_our_warnings_are_one_line_and_others_are_as_they_were(capsys):
    usual = warnings.showwarning

    def run():
        warnings.warn("the box is new to it", OmniCalcWarning, stacklevel=1)

    assert at_border(run) == 0
    assert capsys.readouterr().err == "warning: the box is new to it\n"
    with pytest.warns(UserWarning, match="of a library"):
        at_border(lambda: warnings.warn("of a library", UserWarning, stacklevel=1))
    assert capsys.readouterr().err == ""
    assert warnings.showwarning is usual


def test_codes_of_what_ends_well():
    assert at_border(lambda: None) == 0
    assert at_border(lambda: 3) == 3
    with pytest.raises(SystemExit) as end:
        at_border(raiser(SystemExit(143)))
    assert end.value.code == 143
