"""Tables ``report | experiment | DFT | ours`` as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from omnicalc.analysis.reference_values import DFT, EXPERIMENT, REPORT, Reference, reference
from omnicalc.analysis.report import Quantity, with_error
from omnicalc.files import write_atomically

HEAD = ("quantity", "report", "experiment", "DFT", "ours", "remark")


@dataclass(frozen=True)
class Row:
    """One quantity: what others found, and our number, or in its place the words that say why there is none."""

    name: str
    ours: Quantity | str
    key: str = ""  # of the reference values
    remark: str = ""

    def cells(self) -> tuple[str, ...]:
        known = [reference(self.key, method) for method in (REPORT, EXPERIMENT, DFT)]
        ours = self.ours if isinstance(self.ours, str) else _number(self.ours.value, self.ours.stderr, self.ours.unit)
        return (self.name, *map(_known, known), ours, self.remark)


def _known(known: Reference | None) -> str:
    if known is None:
        return "-"
    return f"{_number(known.value, known.uncertainty, known.unit)} ({known.condition})"


def _number(value: float | None, error: float | None, unit: str) -> str:
    number = with_error(value, error)
    return "not found" if number == "-" else f"{number} {unit}".strip()


def of_value(value, unit: str = "", name: str = "") -> Quantity | str:
    """A quantity of a Value of an RDF (None where there is none)."""
    return "not found" if value is None else Quantity(name, value.value, value.stderr, unit)


def markdown(rows: list[Row]) -> str:
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows), ""])


def write_table(folder: Path, rows: list[Row], title: list[str]) -> None:
    """table.md, with ``title`` lines over it, and table.csv."""
    text = "\n".join([*title, "", markdown(rows)])
    out = io.StringIO()
    csv.writer(out).writerows([HEAD, *(row.cells() for row in rows)])
    write_atomically(folder / "table.md", lambda part: part.write_text(text, encoding="utf-8"))
    write_atomically(folder / "table.csv", lambda part: part.write_text(out.getvalue(), encoding="utf-8"))
