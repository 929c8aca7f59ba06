"""Options shared by all tests, and a weights folder of their own in place of the user's."""

import os
import secrets
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of several workers: spinning threads slow each other down
    os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden" / "cases"


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=GOLDEN,
        help="folder of golden cases, one sub-folder per family (default: the copies in tests/golden/cases)",
    )


def pytest_configure(config):
    """A mistyped folder would leave no case, and all would be skipped."""
    folder = config.getoption("--golden-dir")
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden-dir {folder}: no such folder; one with a sub-folder per family is needed")


@pytest.fixture(scope="session", autouse=True)
def omnicalc_home(tmp_path_factory):
    """Weights that the user imported are none of the tests' business, nor the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNICALC_HOME", str(tmp_path_factory.mktemp("omnicalc_home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def same_seed_every_time():
    """The seed that a run draws when none is given is the same in every test, whenever and wherever it runs.

    Untrained weights let molecules come apart with one seed or another, and the guard then stops the run.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "randbelow", lambda below: 20251125 % below)
        yield


@pytest.fixture(autouse=True)
def nothing_was_told():
    """What a process tells once, each test may hear."""
    if (module := sys.modules.get("omnicalc.unlike_training")) is not None:
        module._told.clear()
