"""The whole of `omnicalc analyze rdf`: open, compute, compare, write."""

from dataclasses import dataclass, replace
from pathlib import Path

from omnicalc.analysis.rdf import Pair, Plan, RDFs, compute, plan_rdf
from omnicalc.analysis.rdf_figure import rdf_png
from omnicalc.analysis.rdf_files import (
    FIGURE,
    MADE_BY,
    RECORD,
    Curve,
    csv_files,
    csv_name,
    load_curves,
    names_of,
    record,
)
from omnicalc.analysis.rdf_table import head_lines, table_lines
from omnicalc.analysis.results import ResultFolder
from omnicalc.analysis.sampling import Progress
from omnicalc.analysis.sources import as_trajectory
from omnicalc.errors import InputError


@dataclass(frozen=True)
class Report:
    """What was computed, what to print, and where the files are."""

    rdfs: RDFs
    lines: list[str]
    files: list[Path]


def run_rdf(
    path: str | Path,
    pairs: list[str] | None = None,
    *,
    top: str | Path | None = None,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    bin_width: float = 0.02,
    r_max: float | None = None,
    exclude_molecule: bool = False,
    n_blocks: int = 10,
    selections: list[tuple[str, str]] | None = None,
    compare: list[Path] | None = None,
    label: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Analyse a trajectory and write rdf_A-B.csv, rdf.json and rdf.png into ``out`` (default: beside it).

    Options as of :func:`omnicalc.analysis.rdf.plan_rdf`; ``compare`` names earlier results. Files
    that this did not write before are never replaced. Raises InputError and RunError.
    """
    trajectory = as_trajectory(path, top)
    others = [load_curves(Path(other)) for other in compare or []]
    plan = plan_rdf(
        trajectory,
        pairs,
        start=start,
        stop=stop,
        step=step,
        bin_width=bin_width,
        r_max=r_max,
        exclude_molecule=exclude_molecule,
        n_blocks=n_blocks,
        selections=selections,
    )
    label = label or "/".join(trajectory.path.resolve().parts[-2:])
    claim = RdfClaim(plan, out, label, exclude_molecule)
    claim.curves = _by_pair(plan, label, others, compare or [])
    return claim.write(compute(plan, progress))


class RdfClaim:
    """The files of a planned RDF, claimed before the work; InputError if one of them is not its own."""

    def __init__(self, plan: Plan, out: str | Path | None, label: str, exclude_molecule: bool):
        self.trajectory, self.label, self.exclude_molecule = plan.trajectory, label, exclude_molecule
        self.curves: dict[Pair, list[Curve]] = {pair: [] for pair in plan.counters}
        folder = Path(out) if out is not None else self.trajectory.path.parent
        self.results = ResultFolder(folder, RECORD, MADE_BY, self.trajectory.path)
        self.results.claim([FIGURE, *map(csv_name, names_of(plan.counters).values())])

    def write(self, rdfs: RDFs) -> Report:
        files = csv_files(rdfs)
        files[FIGURE] = rdf_png(rdfs, self.label, self.curves)
        content = record(self.trajectory, rdfs, self.label, self.exclude_molecule, self.curves)
        written = self.results.write(content, files)
        table = table_lines(rdfs, self.exclude_molecule, self.curves)
        lines = [*head_lines(self.trajectory, rdfs), "", *table, "", "wrote:", *(f"  {file}" for file in written)]
        return Report(rdfs, lines, written)


def _by_pair(plan: Plan, label: str, others: list[dict[Pair, Curve]], paths: list[Path]) -> dict[Pair, list[Curve]]:
    """The compared curves of each of our pairs, each label once; InputError for what cannot be compared."""
    curves: dict[Pair, list[Curve]] = {pair: [] for pair in plan.counters}
    in_files = {pair: tuple(name.split("-")) for pair, name in names_of(plan.counters).items()}
    labels = {label}
    for path, found in zip(paths, others, strict=True):
        # a lone CSV file knows its pair by its name only
        shared = {pair: found.get(pair) or found.get(pair[::-1]) or found.get(in_files[pair]) for pair in plan.counters}
        shared = {pair: curve for pair, curve in shared.items() if curve is not None}
        if not shared:
            there, here = (", ".join("-".join(pair) for pair in pairs) for pairs in (found, curves))
            raise InputError(f"--compare {path} holds {there}, and this analysis {here}; choose a pair with --pair")
        given = next(iter(shared.values())).label
        name = f"{given} ({path})" if given in labels else given
        labels.add(name)
        for pair, curve in shared.items():
            if curve.without_molecule not in (None, plan.counters[pair].left_out > 0):
                theirs, ours = ("with", "without") if curve.without_molecule else ("without", "with")
                raise InputError(
                    f"--compare {path}: its {'-'.join(pair)} was made {theirs} --exclude-molecule and this "
                    f"one is made {ours}; use the same, or compare other pairs with --pair"
                )
            curves[pair].append(replace(curve, label=name))
    return curves
