"""run.json: what a run was asked to do and with what; and whether a resumed run is still the same one."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from omnicalc import __version__
from omnicalc.errors import InputError
from omnicalc.md.folder import RECORD_FORMAT
from omnicalc.md.settings import Settings, option

if TYPE_CHECKING:
    from ase import Atoms

MAY_CHANGE = ("steps", "restart_interval", "guards")  # none has a say in the next step
_NAMES = {"structure.sha256": "structure", "model.sha256": "weights (sha256)", "model.head": "head"}


def structure_hash(atoms: Atoms, charge: int = 0, spin: int = 1) -> str:
    """sha256 over all of a structure that decides its dynamics, bit for bit."""
    parts = [
        np.asarray(atoms.numbers, dtype="<i8"),
        np.asarray(atoms.positions, dtype="<f8"),
        np.asarray(atoms.cell.array, dtype="<f8"),
        np.asarray(atoms.pbc, dtype="|u1"),
        np.asarray(atoms.get_masses(), dtype="<f8"),
        np.asarray(atoms.get_velocities() if atoms.has("momenta") else np.zeros((len(atoms), 3)), dtype="<f8"),
        np.array([charge, spin], dtype="<i8"),
    ]
    for constraint in atoms.constraints:
        if hasattr(constraint, "get_indices"):
            parts.append(np.asarray(constraint.get_indices(), dtype="<i8"))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    found = {"python": platform.python_version(), "omnicalc": __version__}
    for package in ("torch", "numpy", "ase", "vesin"):
        found[package] = metadata.version(package)
    return found


def describe(
    settings: Settings, structure: Mapping, model: Mapping, degrees_of_freedom: int, masses: Mapping | None = None
) -> dict:
    """The record of a new run; see :class:`omnicalc.md.job.Job` for ``structure`` and ``model``, and
    :mod:`omnicalc.md.mass_record` for ``masses``.
    """
    return {
        "format": RECORD_FORMAT,
        "structure": dict(structure),
        "settings": asdict(settings),
        "model": dict(model),
        "degrees_of_freedom": degrees_of_freedom,
        "masses": dict(masses or {}),
        "versions": versions() | ({"openmm": metadata.version("openmm")} if settings.engine == "openmm" else {}),
        "resumed": [],
    }


def check_same(old: Mapping, new: Mapping, folder: object) -> None:
    """Raise :class:`InputError` naming every field in which the run to be resumed is another one."""
    _check_known(old, folder)
    before, now = _identity(old), _identity(new)
    different = [
        f"{_NAMES.get(key, key.split('.')[1])} was {_short(before.get(key))}, now {_short(now[key])}"
        for key in now
        if before.get(key) != now[key]
    ]
    if different:
        raise InputError(
            f"cannot resume {folder}, it would not be the same run: {'; '.join(different)}. "
            "Give what it was started with, or start another run with --out"
        )


def check_same_settings(old: Mapping, given: Mapping[str, object], folder: object) -> None:
    """The same for values given explicitly, by setting name, before a structure or a model is loaded."""
    _check_known(old, folder)
    settings = old["settings"] | old["model"]
    wrong = {
        k: v for k, v in given.items() if k in settings and k not in MAY_CHANGE and v is not None and settings[k] != v
    }
    if wrong:
        k, v = next(iter(wrong.items()))
        raise InputError(
            f"cannot resume {folder}, it would not be the same run: {k} was {_short(settings[k])}, "
            f"now {_short(v)}. Leave {option(k)} out, or start another run with --out"
        )


def check_same_source(old: Mapping, key: str, found: str | None, folder: object) -> None:
    """The same for one of the two hashes, before a network is built: ``key`` "structure" or "model"."""
    if old[key].get("sha256") != found:
        name = _NAMES[f"{key}.sha256"]
        counts = " (cell, charge, spin and velocities are part of it)" if key == "structure" else ""
        raise InputError(
            f"cannot resume {folder}, it would not be the same run: {name} was {_short(old[key].get('sha256'))}, now "
            f"{_short(found)}{counts}. Give what it was started with ({_said_of(old, key)}), or start another run "
            "with --out"
        )


def _said_of(old: Mapping, key: str) -> str:
    named = {"structure": ("file", "formula"), "model": ("name", "head")}[key]
    return ", ".join(str(old[key][k]) for k in named if old[key].get(k) is not None)


def _check_known(old: Mapping, folder: object) -> None:
    unknown = old["settings"].keys() - asdict(Settings()).keys()
    if unknown:
        raise InputError(
            f"cannot resume {folder}: its run.json has the setting '{min(unknown)}', which this version does not know; "
            f"go on with omnicalc {old.get('versions', {}).get('omnicalc')}, or start another run with --out"
        )


def _identity(record: Mapping) -> dict[str, object]:
    settings = asdict(Settings()) | record["settings"]  # what an older version did not know, it had as it is by default
    fields = {f"settings.{k}": v for k, v in settings.items() if k not in MAY_CHANGE}
    fields["structure.sha256"] = record["structure"].get("sha256")
    fields["run.replicas"] = record.get("replicas")
    return fields | {f"model.{k}": record["model"].get(k) for k in ("sha256", "head", "dtype", "device", "skin")}


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
