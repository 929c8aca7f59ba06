"""Single numbers from experiment, from DFT dynamics and from the UBio-MolFM report (reference/values/README.md)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from omnicalc.analysis.experiment import experiment_for, is_water_like
from omnicalc.analysis.report import Quantity

EXPERIMENT, DFT, REPORT = METHODS = ("experiment", "DFT", "UBio-MolFM")
_CITED = {
    "skinner2014": "Skinner 2014",
    "soper2013": "Soper 2013",
    "izadi2016": "Izadi 2016",
    "mahler2012": "Mähler 2012",
    "ubio2026": "UBio-MolFM report",
}
_SHOWN = {"angstrom": "Å", "degree": "degrees", "g/cm3": "g/cm³", "1e-9 m2/s": "1e-9 m²/s"}


@dataclass(frozen=True)
class Reference:
    """One number of one method, in the units that analyses print."""

    key: str
    method: str
    value: float
    uncertainty: float | None
    unit: str  # empty for a pure number
    condition: str
    source: str

    @property
    def note(self) -> str:
        """Condition and source in a few words."""
        return f"{self.condition}; {_CITED[self.source]}"

    def quantity(self, what: str) -> Quantity:
        """For the table of an analysis: ``experiment, WHAT``."""
        return Quantity(f"{self.method}, {what}", self.value, self.uncertainty, self.unit, self.note)


def references(key: str, method: str | None = None) -> list[Reference]:
    """All values of a quantity such as ``Na-O peak``, in the order of the file; empty where none is known."""
    return [r for r in _all().get(key, []) if method in (None, r.method)]


def reference(key: str, method: str = EXPERIMENT) -> Reference | None:
    """The first value of a quantity by one method, or None."""
    return next(iter(references(key, method)), None)


@dataclass(frozen=True)
class KnownShell:
    """First peak of a pair in water by one method, and the coordination number that goes with it."""

    label: str
    method: str
    peak: Reference
    coordination: Reference | None
    around: str  # direction of the coordination number, "O around Na"


def known_shells(pair: tuple[str, str], counts: dict[str, int]) -> list[KnownShell]:
    """Single numbers for a pair of a water-like system that has no measured curve; of other systems none."""
    if not is_water_like(counts) or experiment_for(pair, counts) is not None:
        return []
    found = []
    for key in (f"{pair[0]}-{pair[1]}", f"{pair[1]}-{pair[0]}"):
        a, b = key.split("-")
        numbers = {(r.method, r.condition.split(";")[0]): r for r in references(f"{key} coordination")}
        for feature, extra in (("peak", ""), ("separated", ", separated pair")):
            for peak in references(f"{key} {feature}"):
                number = numbers.get((peak.method, peak.condition.split(";")[0])) if feature == "peak" else None
                label = f"{peak.method}, {(number or peak).condition}{extra if feature not in peak.condition else ''}"
                found.append(KnownShell(label, peak.method, peak, number, f"{b} around {a}"))
    return found


@cache
def _all() -> dict[str, list[Reference]]:
    text = (files("omnicalc.analysis") / "reference" / "values" / "values.csv").read_text(encoding="utf-8")
    found: dict[str, list[Reference]] = {}
    for row in csv.DictReader(text.splitlines()):
        uncertainty = float(row["uncertainty"]) if row["uncertainty"] else None
        unit = _SHOWN.get(row["unit"], row["unit"])
        entry = Reference(
            row["key"], row["method"], float(row["value"]), uncertainty, unit, row["condition"], row["source"]
        )
        found.setdefault(entry.key, []).append(entry)
    return found
