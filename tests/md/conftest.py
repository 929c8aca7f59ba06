"""What tests of runs share: no plots but for those that ask, and what a run has written."""

import csv
from pathlib import Path

import pytest

from omnicalc.md.files import replace_file
from omnicalc.md.folder import RunFolder


@pytest.fixture
def with_plots():
    """Asked for by the few tests that are to draw."""


@pytest.fixture(autouse=True)
def without_plots(monkeypatch, request):
    if "with_plots" not in request.fixturenames:
        for name in ("draw", "draw_cell"):
            monkeypatch.setattr(f"omnicalc.md.loop.plots.{name}", lambda *arguments, **keywords: None)


@pytest.fixture
def quick_plots(monkeypatch, without_plots):
    """Plots that are drawn at once: the log itself."""

    def draw(log: Path, *paths: Path, **keywords) -> None:
        for path in paths:
            replace_file(path, log.read_bytes())

    for name in ("draw", "draw_cell"):
        monkeypatch.setattr(f"omnicalc.md.loop.plots.{name}", draw)


def log_of(folder: RunFolder) -> list[dict[str, float]]:
    with folder.log.open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def bytes_of(folder: RunFolder | Path, *more: str) -> tuple[bytes, ...]:
    """Trajectory, log and ``more`` files of a run."""
    path = folder.path if isinstance(folder, RunFolder) else folder
    return tuple((path / name).read_bytes() for name in ("traj.dcd", "log.csv", *more))
