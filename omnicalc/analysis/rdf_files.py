"""The files of an RDF: one CSV per pair and rdf.json; and reading them back to compare with."""

import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnicalc import __version__
from omnicalc.analysis.experiment import Experiment, experiment_for
from omnicalc.analysis.peaks import first_shell
from omnicalc.analysis.rdf import Pair, PairRDF, RDFs, Value
from omnicalc.analysis.results import fingerprint
from omnicalc.analysis.trajectory import Trajectory
from omnicalc.errors import InputError
from omnicalc.files import sha256_of

RECORD = "rdf.json"
FIGURE = "rdf.png"
MADE_BY = "omnicalc analyze rdf"
_LONGEST = 60  # letters of a selection in a file name


@dataclass(frozen=True)
class Curve:
    """g(r) of one pair from elsewhere, to draw and tabulate beside ours."""

    label: str
    r: np.ndarray  # (n,) Å
    g: np.ndarray  # (n,)
    g_stderr: np.ndarray | None  # (n,)
    peak: tuple[Value, Value] | None
    minimum: tuple[Value, Value] | None
    coordination: dict[str, Value]
    without_molecule: bool | None  # pairs inside molecules were left out; None where that is not known


def names_of(pairs: Iterable[Pair]) -> dict[Pair, str]:
    """A name of each pair that is fit for files: ``O-H``, ``resname_MG-name_OP1``; repeated ones are numbered."""
    names: dict[Pair, str] = {}
    for pair in pairs:
        parts = (re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:_LONGEST] for text in pair)
        name = first = "-".join(parts)
        number = 1
        while name in names.values():
            number += 1
            name = f"{first}_{number}"
        names[pair] = name
    return names


def csv_name(name: str) -> str:
    return f"rdf_{name}.csv"


def csv_files(rdfs: RDFs) -> dict[str, bytes]:
    """The content of each pair's CSV file, by file name."""
    names = names_of(rdf.pair for rdf in rdfs.pairs)
    return {csv_name(names[rdf.pair]): csv_bytes(rdf) for rdf in rdfs.pairs}


def csv_bytes(rdf: PairRDF) -> bytes:
    """Columns r_angstrom, g, g_stderr (``nan`` without error bars) and the running coordination number.

    That is ``n`` for like pairs; for unlike ones ``n_H_around_O`` and ``n_O_around_H``. r is the centre of a
    bin, and half of the bin's own pairs count as within r.
    """
    stderr = np.full_like(rdf.g, np.nan) if rdf.g_stderr is None else rdf.g_stderr
    names = ["n"] if len(rdf.around) == 1 else ["n_" + name.replace(" ", "_") for name in rdf.around]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(["r_angstrom", "g", "g_stderr", *names])
    for row in zip(rdf.r, rdf.g, stderr, *rdf.around.values(), strict=True):
        out.write(",".join([f"{row[0]:.5f}", *(f"{value:.6f}" for value in row[1:])]) + "\n")
    return out.getvalue().encode()


def record(trajectory: Trajectory, rdfs: RDFs, label: str, exclude_molecule: bool, curves: dict[Pair, list[Curve]]):
    """The content of rdf.json: settings, sources, and per pair the first shell beside other curves."""
    frames = rdfs.frames
    names = names_of(rdf.pair for rdf in rdfs.pairs)
    return {
        "omnicalc": __version__,
        "label": label,
        "trajectory": {**fingerprint(trajectory.path), "frames": trajectory.n_frames},
        "topology": fingerprint(trajectory.topology) if trajectory.topology else None,
        "composition": rdfs.composition,
        "settings": {
            "start": frames.start,
            "stop": frames.stop,
            "step": frames.step,
            "bin_angstrom": rdfs.bin_width,
            "rmax_angstrom": round(rdfs.r_max, 9),
            "exclude_molecule": exclude_molecule,
            "blocks": rdfs.n_blocks,
        },
        "frames_used": len(frames),
        "mean_volume_angstrom3": rdfs.mean_volume,
        "half_smallest_height_angstrom": rdfs.limit,
        "molecules": rdfs.molecules,
        "notes": rdfs.notes,
        "pairs": {
            names[rdf.pair]: _pair_record(names[rdf.pair], rdf, rdfs, exclude_molecule, curves) for rdf in rdfs.pairs
        },
    }


def _pair_record(name: str, rdf: PairRDF, rdfs: RDFs, exclude_molecule: bool, curves: dict[Pair, list[Curve]]) -> dict:
    experiment = experiment_for(rdf.pair, rdfs.composition)
    return {
        "file": csv_name(name),
        "of": list(rdf.pair),
        "pairs_counted_per_frame": rdf.pairs,
        "pairs_left_out_per_frame": rdf.left_out,
        "first_peak": _point(rdf.peak),
        "first_minimum": _point(rdf.minimum),
        "coordination_to_minimum": {name: _value(value) for name, value in rdf.coordination.items()},
        "experiment": None if experiment is None else _experiment_record(experiment, exclude_molecule),
        "compared_with": [_curve_record(rdf, curve) for curve in curves.get(rdf.pair, [])],
    }


def comparable(experiment: Experiment, exclude_molecule: bool) -> bool:
    """Whether the first peaks of ours and of the measured curve mean the same thing."""
    return exclude_molecule or not experiment.without_molecule


def _experiment_record(experiment: Experiment, exclude_molecule: bool) -> dict:
    return {
        "label": experiment.label,
        "citation": experiment.citation,
        "temperature_K": experiment.temperature,
        "first_peak": {"r_angstrom": experiment.peak[0], "g": experiment.peak[1]},
        "first_minimum": {"r_angstrom": experiment.minimum[0], "g": experiment.minimum[1]},
        "coordination_to_minimum": experiment.coordination,
        "first_peaks_comparable": comparable(experiment, exclude_molecule),
    }


def _curve_record(rdf: PairRDF, curve: Curve) -> dict:
    difference = peak_difference(rdf, curve)
    return {
        "label": curve.label,
        "first_peak": _point(curve.peak),
        "first_minimum": _point(curve.minimum),
        "coordination_to_minimum": {name: _value(value) for name, value in curve.coordination.items()},
        "this_minus_that_first_peak": _point(difference),
    }


def peak_difference(rdf: PairRDF, curve: Curve) -> tuple[Value, Value] | None:
    """Ours minus theirs: first-peak position (Å) and height, errors added in quadrature."""
    if rdf.peak is None or curve.peak is None:
        return None
    return tuple(_minus(a, b) for a, b in zip(rdf.peak, curve.peak, strict=True))


def _minus(a: Value, b: Value) -> Value:
    known = a.stderr is not None and b.stderr is not None
    return Value(a.value - b.value, float(np.hypot(a.stderr, b.stderr)) if known else None)


def _value(value: Value) -> dict:
    return {"value": value.value, "stderr": value.stderr}


def _point(point: tuple[Value, Value] | None) -> dict | None:
    if point is None:
        return None
    (r, g) = point
    return {"r_angstrom": r.value, "r_stderr": r.stderr, "g": g.value, "g_stderr": g.stderr}


def load_curves(path: Path) -> dict[Pair, Curve]:
    """Curves of an earlier ``omnicalc analyze rdf``: its folder, its rdf.json, or one of its CSV files.

    A lone CSV with columns r_angstrom and g (and g_stderr, if known) works too when it is named rdf_A-B.csv;
    its first shell is then found from the curve, without errors. Raises InputError.
    """
    path = path / RECORD if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"--compare {path} does not exist; give the rdf.json, or an rdf_O-O.csv, of another RDF")
    try:
        if path.suffix != ".csv":
            return _from_record(path, json.loads(path.read_text(encoding="utf-8")))
        beside = path.with_name(RECORD)
        if beside.is_file():
            made = json.loads(beside.read_text(encoding="utf-8"))
            listed = [name for name, entry in made["pairs"].items() if entry["file"] == path.name]
            if listed:
                return _from_record(beside, {**made, "pairs": {name: made["pairs"][name] for name in listed}})
        return _from_csv(path)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--compare {path} is not a result of '{MADE_BY}' ({type(error).__name__}: {error}); "
            f"give its rdf.json or one of its CSV files"
        ) from None


def _from_record(path: Path, made: dict) -> dict[Pair, Curve]:
    curves = {}
    for name, entry in made["pairs"].items():
        file = path.with_name(entry["file"])
        if sha256_of(file) != made["files"][entry["file"]]:
            raise InputError(f"--compare {file} is not the file that {path} describes; make it again")
        r, g, stderr = _columns(file)
        coordination = {k: Value(**v) for k, v in entry["coordination_to_minimum"].items()}
        peak, minimum = (_from_point(entry[key]) for key in ("first_peak", "first_minimum"))
        left_out = entry["pairs_left_out_per_frame"] > 0
        curves[_pair(name, entry)] = Curve(made["label"], r, g, stderr, peak, minimum, coordination, left_out)
    return curves


def _from_csv(path: Path) -> dict[Pair, Curve]:
    if not path.stem.startswith("rdf_"):
        raise InputError(f"--compare {path}: name it rdf_A-B.csv (such as rdf_O-O.csv), so that its pair is known")
    r, g, stderr = _columns(path)
    shell = first_shell(r, g, stderr)
    points = [(Value(e.r, None), Value(e.g, None)) if e else None for e in (shell.peak, shell.minimum)] if shell else []
    peak, minimum = points or (None, None)
    return {_pair(path.stem.removeprefix("rdf_"), {}): Curve(path.name, r, g, stderr, peak, minimum, {}, None)}


def _columns(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    r, g = (np.array([float(row[key]) for row in rows]) for key in ("r_angstrom", "g"))
    stderr = np.array([float(row.get("g_stderr") or "nan") for row in rows])
    if len(r) < 10 or not np.allclose(np.diff(r), r[1] - r[0], atol=1e-4):
        raise InputError(f"--compare {path} needs ten or more rows on an even grid of r_angstrom")
    return r, g, stderr if np.isfinite(stderr).all() else None


def _from_point(point: dict | None) -> tuple[Value, Value] | None:
    return point and (Value(point["r_angstrom"], point["r_stderr"]), Value(point["g"], point["g_stderr"]))


def _pair(name: str, entry: dict) -> Pair:
    a, b = entry.get("of") or name.split("-")
    return a, b
