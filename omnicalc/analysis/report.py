"""The result of an analysis: quantities with units and errors, tables, notes and a figure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from omnicalc import __version__
from omnicalc.analysis.blocks import block_mean
from omnicalc.analysis.energy import mean_with_error
from omnicalc.analysis.quiet import quietly
from omnicalc.analysis.results import fingerprint
from omnicalc.analysis.sampling import Sampling
from omnicalc.files import write_atomically

SHORT_BLOCKS = "slow changes: the true error is larger, take a longer run"  # blocks below ten correlation times


@dataclass(frozen=True)
class Quantity:
    """One number: its standard error is None where there was too little data for one."""

    name: str
    value: float | None  # None: it could not be found; ``note`` says why
    stderr: float | None
    unit: str  # empty for a pure number
    note: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, with_error(self.value, self.stderr), self.unit) if part)


@dataclass(frozen=True)
class Result:
    """What one analysis found.

    ``result["name"]`` is the :class:`Quantity` of that name; ``tables`` maps a name to columns of equal length,
    with units in the column names.
    """

    verb: str
    sources: list[Path]
    head: list[str]  # what was read, in words
    settings: dict
    quantities: list[Quantity]
    tables: dict[str, dict[str, np.ndarray]]
    notes: list[str]
    draw: Callable[[object], None] = field(repr=False)  # onto a matplotlib Figure

    def __getitem__(self, name: str) -> Quantity:
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        raise KeyError(f"{name!r}; there are {', '.join(q.name for q in self.quantities)}")

    def csv_bytes(self, table: str) -> bytes:
        """One table as CSV; ``nan`` for what is not known."""
        columns = self.tables[table]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(map(self.cell, columns, row))
        return out.getvalue().encode()

    def cell(self, column: str, value) -> str:
        """A value of a table as text: eight digits of a number that is not whole."""
        return f"{value:.8g}" if isinstance(value, float | np.floating) else str(value)

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write every table as ``VERB_TABLE.csv`` into a folder, replacing such files; returns their paths."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = {Path(folder) / self.csv_name(table): table for table in self.tables}
        for path, table in paths.items():
            write_atomically(path, lambda part, table=table: part.write_bytes(self.csv_bytes(table)))
        return list(paths)

    def csv_name(self, table: str) -> str:
        return f"{self.verb}_{table}.csv"

    def record(self) -> dict:
        """Settings, sources, quantities and notes; numbers that are not finite become None."""
        return {
            "omnicalc": __version__,
            "sources": [fingerprint(path) for path in self.sources if path.is_file()],
            "settings": self.settings,
            "quantities": [
                {
                    "name": q.name,
                    "value": _finite(q.value),
                    "stderr": _finite(q.stderr),
                    "unit": q.unit,
                    "note": q.note,
                }
                for q in self.quantities
            ],
            "notes": self.notes,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """The record as JSON text, also written to ``path`` if one is given."""
        text = json.dumps({"verb": self.verb, **self.record()}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            write_atomically(Path(path), lambda part: part.write_text(text, encoding="utf-8"))
        return text

    def plot(self, path: str | Path | None = None):
        """The figure, a matplotlib Figure made without pyplot; also saved to ``path`` if one is given."""
        from matplotlib.figure import Figure

        with quietly():
            figure = Figure(figsize=(7.0, 4.3), layout="constrained")
            self.draw(figure)
            if path is not None:
                figure.savefig(path, dpi=160, facecolor="white")
        return figure

    def png_bytes(self) -> bytes:
        with quietly():
            out = io.BytesIO()
            self.plot().savefig(out, format="png", dpi=160, facecolor="white")
        return out.getvalue()

    def lines(self) -> list[str]:
        """What the command line prints: what was read, notes, and a table of the quantities."""
        return [*self.head, *(f"note: {note}" for note in self.notes), "", *self.summary()]

    def summary(self) -> list[str]:
        """The quantities in columns."""
        return columns_of([(q.name, with_error(q.value, q.stderr), q.unit, q.note) for q in self.quantities])


def series_quantity(name: str, values: np.ndarray, sampling: Sampling, unit: str, note: str = "") -> Quantity:
    """Mean of a number per frame (F,), with its block error; the note says when blocks are too short for it.

    Frames that are not a number are left out.
    """
    mean, error = block_mean(values, sampling.n_blocks)
    changes = error is not None and not _is_rounding(mean, error)
    if changes and np.isfinite(values).all() and not mean_with_error(values, sampling.n_blocks).long_blocks:
        note = with_short_blocks(note)
    return Quantity(name, mean, error, unit, note)


def with_short_blocks(note: str) -> str:
    """A note that also says that blocks are too short for the error."""
    return f"{note}; {SHORT_BLOCKS}" if note else SHORT_BLOCKS


def columns_of(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of text with their cells lined up."""
    if not rows:
        return []
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def with_error(value: float | None, stderr: float | None) -> str:
    """``2.731 ± 0.006``: two digits of the error where there is one, else four of the value."""
    if value is None or not math.isfinite(value):
        return "-"
    if stderr is None or not math.isfinite(stderr):
        return f"{value:.4g}"
    if _is_rounding(value, stderr):
        return f"{value:.4g} ± 0"
    decimals = 1 - math.floor(math.log10(stderr))
    if decimals > 8 or decimals < -4:
        return f"{value:.6g} ± {stderr:.2g}"
    digits = max(decimals, 0)
    return f"{round(value, decimals):.{digits}f} ± {round(stderr, decimals):.{digits}f}"


def _is_rounding(value: float, stderr: float) -> bool:
    return stderr <= 1e-9 * max(abs(value), 1e-30)


def describe_sampling(sampling: Sampling) -> list[str]:
    """What was read: file, frames, atoms, time and blocks."""
    frames, trajectory = sampling.frames, sampling.trajectory
    step = f", step {frames.step}" if frames.step > 1 else ""
    atoms = " ".join(f"{e}{n}" for e, n in trajectory.counts.items())
    named = f"; atoms named by {trajectory.topology}" if trajectory.topology else ""
    time = f", {sampling.dt_ps * 1000:.6g} fs apart" if sampling.dt_ps and len(frames) > 1 else ""
    blocks = sampling.n_blocks
    errors = f"; errors from {blocks} blocks of {len(frames) // blocks} frames" if blocks else ""
    return [
        f"{trajectory.path}: {len(frames)} of {trajectory.n_frames} frames ({frames[0]} to {frames[-1]}{step}){time}, "
        f"of {trajectory.n_atoms} atoms, {atoms}{named}{errors}"
    ]


def sampling_settings(sampling: Sampling) -> dict:
    frames = sampling.frames
    return {
        "start": frames.start,
        "stop": frames.stop,
        "step": frames.step,
        "frames_used": len(frames),
        "dt_ps": sampling.dt_ps,
        "blocks": sampling.n_blocks,
    }


def make_result(verb, sampling: Sampling, settings, quantities, tables, notes, draw, head=()) -> Result:
    """A :class:`Result` of frames of one trajectory; ``head``: further lines of what was read."""
    trajectory = sampling.trajectory
    sources = [trajectory.path] + ([trajectory.topology] if trajectory.topology else [])
    return Result(
        verb,
        sources,
        [*describe_sampling(sampling), *head],
        {**sampling_settings(sampling), **settings},
        quantities,
        tables,
        [*sampling.notes(), *trajectory.labels.doubts(), *notes],
        draw,
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
