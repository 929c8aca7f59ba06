"""The short table that `omnicalc analyze rdf` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicalc.analysis.experiment import Experiment, experiment_for
from omnicalc.analysis.rdf_curves import Curve, PairRDF, Value, peak_difference
from omnicalc.analysis.reference_values import known_shells
from omnicalc.analysis.report import columns_of, with_error

if TYPE_CHECKING:
    from omnicalc.analysis.rdf_result import RDFs

_HEADS = ("pair", "first peak (Å)", "height", "minimum (Å)", "g there", "coordination to the minimum")
_PRINTED_ERROR = 0.0005
_LONGEST = 80  # letters of a name


def table_lines(rdfs: RDFs) -> list[str]:
    """One row per pair, with the experiment and compared curves under it."""
    rows: list[tuple[str, ...]] = [_HEADS]
    hidden = False
    for rdf in rdfs.pairs:
        rows.append((_short(rdf.name), *_cells(rdf.peak, rdf.minimum, rdf.coordination, rdfs.r_max)))
        experiment = experiment_for(rdf.pair, rdfs.composition)
        if experiment is not None and comparable(experiment, rdfs):
            points = [tuple(Value(v, None) for v in point) for point in (experiment.peak, experiment.minimum)]
            around = {name: Value(n, None) for name, n in experiment.coordination.items() if name in rdf.around}
            name = "  " + experiment.label.split(" (")[0]
            rows.append((name, *_cells(*points, around, rdfs.r_max)))
        rows += _known_rows(rdf, rdfs)
        hidden |= experiment is not None and not comparable(experiment, rdfs)
        for curve in rdfs.curves[rdf.pair]:
            rows += _curve_rows(rdf, curve, rdfs.r_max)
    lines = columns_of(rows)
    if hidden:
        lines.append("Measured O-H and H-H leave out pairs inside a molecule; --exclude-molecule does so too.")
    return lines


def comparable(experiment: Experiment, rdfs: RDFs) -> bool:
    """Whether the first peaks of ours and of the measured curve mean the same thing."""
    return rdfs.molecules is not None or not experiment.without_molecule


def _known_rows(rdf: PairRDF, rdfs: RDFs) -> list[tuple[str, ...]]:
    """Rows of single numbers known for a pair that has no measured curve."""
    rows = []
    for known in known_shells(rdf.pair, rdfs.composition):
        around = ""
        if known.coordination is not None:
            around = f"{with_error(known.coordination.value, known.coordination.uncertainty)} {known.around}"
        rows.append((f"  {known.label}", with_error(known.peak.value, known.peak.uncertainty), "", "", "", around))
    return rows


def _curve_rows(rdf: PairRDF, curve: Curve, r_max: float) -> list[tuple[str, ...]]:
    rows = [(f"  {curve.label}", *_cells(curve.peak, curve.minimum, curve.coordination, r_max))]
    difference = peak_difference(rdf, curve)
    if difference is not None:
        rows.append(("  difference", *(show(value, sign="+") for value in difference), "", "", ""))
    return rows


def _cells(peak, minimum, coordination: dict[str, Value], r_max: float) -> tuple[str, ...]:
    if peak is None:
        return (f"no peak up to {r_max:.2f}", "", "", "", "")
    if minimum is None:
        return (*map(show, peak), f"none to {r_max:.2f}", "", "")
    around = ", ".join(f"{show(value)} {_short(name)}" for name, value in coordination.items())
    return (*map(show, peak), *map(show, minimum), around)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def show(value: Value, sign: str = "") -> str:
    """``2.731 ± 0.006``; three decimals, and the error only where there is one."""
    text = f"{value.value:{sign}.3f}"
    if value.stderr is None:
        return text
    return f"{text} ± {value.stderr:.3f}" if value.stderr >= _PRINTED_ERROR else f"{text} ± <0.001"
