"""The short table that `omnicalc analyze rdf` prints."""

from omnicalc.analysis.experiment import experiment_for
from omnicalc.analysis.rdf import Pair, PairRDF, RDFs, Value
from omnicalc.analysis.rdf_files import Curve, comparable, peak_difference
from omnicalc.analysis.reference_values import known_shells
from omnicalc.analysis.report import with_error
from omnicalc.analysis.trajectory import Trajectory

_HEADS = ("pair", "first peak (Å)", "height", "minimum (Å)", "g there", "coordination to the minimum")
_PRINTED_ERROR = 0.0005
_LONGEST = 80  # letters of a name


def head_lines(trajectory: Trajectory, rdfs: RDFs) -> list[str]:
    """What was read and with which settings."""
    frames = rdfs.frames
    step = f", step {frames.step}" if frames.step > 1 else ""
    atoms = " ".join(f"{element}{count}" for element, count in rdfs.composition.items())
    named = f"; atoms named by {trajectory.topology}" if trajectory.topology else ""
    blocks = rdfs.n_blocks
    errors = f"; errors from {blocks} blocks of {len(frames) // blocks} frames" if blocks else ""
    lines = [
        f"{trajectory.path}: {len(frames)} of {trajectory.n_frames} frames "
        f"({frames[0]} to {frames[-1]}{step}) of {trajectory.n_atoms} atoms, {atoms}{named}",
        f"bins of {rdfs.bin_width:g} Å up to {rdfs.r_max:.2f} Å "
        f"(half the smallest cell height: {rdfs.limit:.3f} Å){errors}",
    ]
    if rdfs.molecules:
        lines.append(f"pairs inside one molecule left out: {rdfs.molecules}")
    return lines + [f"note: {note}" for note in rdfs.notes]


def table_lines(rdfs: RDFs, exclude_molecule: bool, curves: dict[Pair, list[Curve]]) -> list[str]:
    """One row per pair, with the experiment and compared curves under it."""
    rows: list[tuple[str, ...]] = [_HEADS]
    hidden = False
    for rdf in rdfs.pairs:
        rows.append((_short(rdf.name), *_cells(rdf.peak, rdf.minimum, rdf.coordination, rdfs.r_max)))
        experiment = experiment_for(rdf.pair, rdfs.composition)
        if experiment is not None and comparable(experiment, exclude_molecule):
            points = [tuple(Value(v, None) for v in point) for point in (experiment.peak, experiment.minimum)]
            around = {name: Value(n, None) for name, n in experiment.coordination.items() if name in rdf.around}
            name = "  " + experiment.label.split(" (")[0]
            rows.append((name, *_cells(*points, around, rdfs.r_max)))
        rows += _known_rows(rdf, rdfs)
        hidden |= experiment is not None and not comparable(experiment, exclude_molecule)
        for curve in curves.get(rdf.pair, []):
            rows += _curve_rows(rdf, curve, rdfs.r_max)
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if hidden:
        lines.append("Measured O-H and H-H leave out pairs inside a molecule; --exclude-molecule does so too.")
    return lines


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
