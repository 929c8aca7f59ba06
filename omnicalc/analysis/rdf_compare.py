"""Earlier RDFs to compare with: reading their files back, and which of their curves go beside ours."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from omnicalc.analysis.peaks import first_shell
from omnicalc.analysis.rdf_curves import Curve, Pair, Point, Value, names_of
from omnicalc.errors import InputError
from omnicalc.files import sha256_of

RECORD = "rdf.json"
MADE_BY = "omnicalc analyze rdf"


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


def _from_point(point: dict | None) -> Point | None:
    return point and (Value(point["r_angstrom"], point["r_stderr"]), Value(point["g"], point["g_stderr"]))


def _pair(name: str, entry: dict) -> Pair:
    a, b = entry.get("of") or name.split("-")
    return a, b


def curves_by_pair(
    pairs: dict[Pair, bool], label: str, earlier: dict[str | Path, dict[Pair, Curve]]
) -> dict[Pair, list[Curve]]:
    """The compared curves of each of our pairs, each label once; InputError for what cannot be compared.

    ``pairs`` says of ours whether pairs inside molecules were left out, ``label`` is ours, ``earlier`` by path.
    """
    curves: dict[Pair, list[Curve]] = {pair: [] for pair in pairs}
    in_files = {pair: tuple(name.split("-")) for pair, name in names_of(pairs).items()}
    labels = {label}
    for path, found in earlier.items():
        # a lone CSV file knows its pair by its name only
        shared = {pair: found.get(pair) or found.get(pair[::-1]) or found.get(in_files[pair]) for pair in pairs}
        shared = {pair: curve for pair, curve in shared.items() if curve is not None}
        if not shared:
            there, here = (", ".join("-".join(pair) for pair in held) for held in (found, curves))
            raise InputError(f"--compare {path} holds {there}, and this analysis {here}; choose a pair with --pair")
        given = next(iter(shared.values())).label
        name = f"{given} ({path})" if given in labels else given
        labels.add(name)
        for pair, curve in shared.items():
            if curve.without_molecule not in (None, pairs[pair]):
                theirs, ours = ("with", "without") if curve.without_molecule else ("without", "with")
                raise InputError(
                    f"--compare {path}: its {'-'.join(pair)} was made {theirs} --exclude-molecule and this "
                    f"one is made {ours}; use the same, or compare other pairs with --pair"
                )
            curves[pair].append(replace(curve, label=name))
    return curves
