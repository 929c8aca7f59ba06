"""Lines, checks and files that all verbs of this study share."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from omnicalc.analysis.energy import EnergyLog, Estimate
from omnicalc.analysis.results import ResultFolder


@dataclass(frozen=True)
class Check:
    """The size of a number against what is required of it."""

    name: str
    value: float
    stderr: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return abs(self.value) <= self.limit

    @property
    def clear(self) -> bool:
        """Whether the number lies two standard errors or more from the limit."""
        return abs(abs(self.value) - self.limit) >= 2 * self.stderr

    @property
    def line(self) -> str:
        doubt = "" if self.clear else ", but nearer to the limit than two standard errors"
        return f"{f'|{self.name}| <= {self.limit:g} {self.unit}'.rstrip()}: {'yes' if self.met else 'NO'}{doubt}"

    def as_dict(self) -> dict:
        return vars(self) | {"met": self.met, "clear": self.clear}


def blocks_line(found: Estimate, log: EnergyLog) -> str:
    """How the error was made, with a warning where it is too small."""
    spacing = float(np.diff(log.time_ps).mean())
    short = "" if found.long_blocks else " (TOO SHORT: the true error is larger; make the run longer)"
    tau = found.correlation * spacing
    known = f"about {tau:.2g}" if found.correlation >= 0.5 else f"below {0.5 * spacing:.2g}"
    return f"error from {found.n_blocks} blocks of {found.block * spacing:.3g} ps, correlation time {known} ps{short}"


def estimate(found: Estimate, log: EnergyLog) -> dict:
    """An estimate for the JSON file, times in ps."""
    spacing = float(np.diff(log.time_ps).mean())
    return {
        "value": found.value,
        "stderr": found.stderr,
        "spread": found.spread,
        "blocks": found.n_blocks,
        "block_ps": found.block * spacing,
        "correlation_time_ps": found.correlation * spacing,
        "blocks_long_enough": found.long_blocks,
    }


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def claim(verb: str, folder: Path, source: Path, *, figure: bool = True) -> ResultFolder:
    """The place for the results of a verb; refuses early what could not be written there."""
    results = ResultFolder(folder, f"validate_{verb}.json", f"analysis/water/validate.py {verb}", source)
    results.claim([_figure_name(results)] if figure else [])
    return results


def finish(results: ResultFolder, content: dict, figure, lines: list[str]) -> None:
    """Write JSON and figure, and print."""
    files = {}
    if figure is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        files[_figure_name(results)] = buffer.getvalue()
    plain = json.loads(json.dumps(content, default=lambda number: number.item()))  # numpy's as Python's
    written = results.write(plain, files)
    click.echo("\n".join([*lines, "wrote:", *(f"  {file}" for file in written)]))


def _figure_name(results: ResultFolder) -> str:
    return results.record.replace(".json", ".png")
