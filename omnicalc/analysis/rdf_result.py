"""The result of an RDF: a :class:`Result` with the curves of its pairs, and what rdf.json holds."""

from dataclasses import dataclass

from omnicalc import __version__
from omnicalc.analysis.experiment import Experiment, experiment_for
from omnicalc.analysis.rdf_curves import Curve, Pair, PairRDF, Point, Value, names_of, peak_difference
from omnicalc.analysis.rdf_table import comparable, table_lines
from omnicalc.analysis.report import Quantity, Result
from omnicalc.analysis.results import fingerprint
from omnicalc.analysis.sampling import Sampling


@dataclass(frozen=True)
class RDFs(Result):
    """All pairs of one trajectory, with what they were made from."""

    sampling: Sampling
    pairs: list[PairRDF]
    bin_width: float  # Å
    r_max: float  # Å, upper edge of the last bin
    limit: float  # Å, half the smallest height of any frame's box
    mean_volume: float  # Å^3
    molecules: str | None  # what was recognised, where pairs inside molecules were left out
    label: str  # of our curves in the figure, and in later comparisons
    curves: dict[Pair, list[Curve]]  # of others, by our pairs

    @property
    def composition(self) -> dict[str, int]:
        return self.sampling.trajectory.counts

    def cell(self, column: str, value: float) -> str:
        return f"{value:.5f}" if column == "r_angstrom" else f"{value:.6f}"

    def summary(self) -> list[str]:
        return table_lines(self)

    def record(self) -> dict:
        """The content of rdf.json: settings, sources, and per pair the first shell beside other curves."""
        trajectory = self.sampling.trajectory
        names = names_of(rdf.pair for rdf in self.pairs)
        return {
            "omnicalc": __version__,
            "label": self.label,
            "trajectory": {**fingerprint(trajectory.path), "frames": trajectory.n_frames},
            "topology": fingerprint(trajectory.topology) if trajectory.topology else None,
            "composition": self.composition,
            "settings": self.settings,
            "frames_used": len(self.sampling),
            "mean_volume_angstrom3": self.mean_volume,
            "half_smallest_height_angstrom": self.limit,
            "molecules": self.molecules,
            "notes": self.notes,
            "pairs": {names[rdf.pair]: self._pair_record(names[rdf.pair], rdf) for rdf in self.pairs},
        }

    def _pair_record(self, name: str, rdf: PairRDF) -> dict:
        experiment = experiment_for(rdf.pair, self.composition)
        return {
            "file": self.csv_name(name),
            "of": list(rdf.pair),
            "pairs_counted_per_frame": rdf.pairs,
            "pairs_left_out_per_frame": rdf.left_out,
            **_shell_record(rdf),
            "experiment": None if experiment is None else self._experiment_record(experiment),
            "compared_with": [
                {
                    "label": curve.label,
                    **_shell_record(curve),
                    "this_minus_that_first_peak": _point(peak_difference(rdf, curve)),
                }
                for curve in self.curves[rdf.pair]
            ],
        }

    def _experiment_record(self, experiment: Experiment) -> dict:
        return {
            "label": experiment.label,
            "citation": experiment.citation,
            "temperature_K": experiment.temperature,
            "first_peak": {"r_angstrom": experiment.peak[0], "g": experiment.peak[1]},
            "first_minimum": {"r_angstrom": experiment.minimum[0], "g": experiment.minimum[1]},
            "coordination_to_minimum": experiment.coordination,
            "first_peaks_comparable": comparable(experiment, self),
        }


def shell_quantities(rdf: PairRDF) -> list[Quantity]:
    """First peak and minimum of a pair, and its coordination numbers."""
    found = []
    for name, point in (("first peak", rdf.peak), ("first minimum", rdf.minimum)):
        r, g = point or (Value(None, None), Value(None, None))
        note = "" if point else "none stands out"
        found.append(Quantity(f"{name} {rdf.name}", r.value, r.stderr, "Å", note))
        found.append(Quantity(f"g at the {name} {rdf.name}", g.value, g.stderr, "", note))
    return found + [Quantity(f"n({name})", n.value, n.stderr, "") for name, n in rdf.coordination.items()]


def _shell_record(curve: PairRDF | Curve) -> dict:
    return {
        "first_peak": _point(curve.peak),
        "first_minimum": _point(curve.minimum),
        "coordination_to_minimum": {
            name: {"value": n.value, "stderr": n.stderr} for name, n in curve.coordination.items()
        },
    }


def _point(point: Point | None) -> dict | None:
    if point is None:
        return None
    (r, g) = point
    return {"r_angstrom": r.value, "r_stderr": r.stderr, "g": g.value, "g_stderr": g.stderr}
