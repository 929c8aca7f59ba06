"""Energy conservation of a run, from its log.csv: the slope of the total energy, with an honest error.

Where the log has the energy that a thermostatted or barostatted run conserves, it takes the place of the total one.
The slope and its error are those of :func:`omnicalc.analysis.energy.drift`: a straight line through block means,
Student's t with B - 2 degrees of freedom. The drift is given per atom and in kelvin per nanosecond, as what it would
heat the system by if all of it became kinetic energy of 3N harmonic modes: dT/dt = slope / (3 k_B), slope per atom.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import constants, stats

from omnicalc.analysis.energy import EnergyLog, drift, mean_with_error, read_log
from omnicalc.analysis.plots import OURS, finish
from omnicalc.analysis.report import SHORT_BLOCKS, Quantity, Result
from omnicalc.analysis.trajectory import record_beside
from omnicalc.errors import InputError

_K_B = constants.k / constants.e  # eV/K


def energy_drift(source, *, atoms: int | None = None, skip_ps: float = 0.0, n_blocks: int = 10) -> Result:
    """Drift and fluctuation of the total energy of a run, and its mean temperature and energies.

    ``source`` is the folder of a run, or its log.csv; ``atoms`` is needed where no run.json lies beside it, and
    has to agree with one that does. ``skip_ps`` leaves out the beginning. Raises InputError.
    """
    path = log_path(source)
    log = read_log(path).after(skip_ps)
    record = record_beside(path)
    recorded = record.get("structure", {}).get("atoms")
    if recorded and atoms not in (None, recorded):
        raise InputError(f"--atoms {atoms} given, but the run.json beside {path} says {recorded}; leave --atoms out")
    atoms = atoms if atoms is not None else recorded
    if not atoms or atoms < 1:
        raise InputError(f"no run.json beside {path} says how many atoms there are; give their number with --atoms")
    energy, which = (log.total, "total") if log.conserved is None else (log.conserved, "conserved")
    found = drift(log.time_ps, energy * 1000.0 / atoms, n_blocks)  # meV/atom/ps
    p_value = float(2 * stats.t.sf(abs(found.value) / found.stderr, found.n_blocks - 2)) if found.stderr > 0 else 0.0
    slow = "" if found.long_blocks else SHORT_BLOCKS
    chance = f"chance of this much without any drift: {p_value:.2g}"
    to_kelvin_per_ns = 1e-3 * 1000.0 / (3 * _K_B)
    total, temperature = drift(log.time_ps, energy, n_blocks), mean_with_error(log.temperature, n_blocks)
    potential = mean_with_error(log.potential, n_blocks)
    quantities = [
        Quantity(f"drift of the {which} energy", found.value, found.stderr, "meV/atom/ps", _joined(chance, slow)),
        Quantity(
            "drift as heating", found.value * to_kelvin_per_ns, found.stderr * to_kelvin_per_ns, "K/ns", "3N modes"
        ),
        Quantity("fluctuation about the line", found.spread, None, "meV/atom", "root mean square"),
        Quantity("total change over the log", total.value * (log.time_ps[-1] - log.time_ps[0]), None, "eV", "line"),
        Quantity("temperature", temperature.value, temperature.stderr, "K", _slow(temperature)),
        Quantity("potential energy", potential.value, potential.stderr, "eV", _slow(potential)),
    ]
    ensemble = record.get("settings", {}).get("ensemble")
    notes = []
    if ensemble is not None and ensemble != "nve" and log.conserved is None:
        notes.append(f"a run in the {ensemble} ensemble exchanges heat: its total energy is not meant to be conserved")
    blocks = np.array_split(np.arange(len(log.time_ps)), found.n_blocks)
    tables = {
        "blocks": {
            "time_ps": np.array([log.time_ps[b].mean() for b in blocks]),
            f"{which}_meV_per_atom": np.array([(energy[b] - energy.mean()).mean() * 1000 / atoms for b in blocks]),
            "temperature_K": np.array([log.temperature[b].mean() for b in blocks]),
        }
    }
    head = [
        f"{path}: {len(log.time_ps)} lines from {log.time_ps[0]:g} to {log.time_ps[-1]:g} ps, {atoms} atoms; "
        f"errors from {found.n_blocks} blocks"
    ]
    settings = {"atoms": atoms, "skip_ps": skip_ps, "blocks": found.n_blocks, "ensemble": ensemble}
    return Result(
        "drift",
        [path],
        head,
        settings,
        quantities,
        tables,
        notes,
        lambda figure: _draw(figure, log, energy, which, atoms, found),
    )


def log_path(source) -> Path:
    """The log of a run: itself, or log.csv in its folder or beside its trajectory."""
    path = Path(source)
    if path.is_dir():
        return path / "log.csv"
    return path if path.suffix == ".csv" or not path.exists() else path.parent / "log.csv"


def _slow(estimate) -> str:
    return "" if estimate.long_blocks else SHORT_BLOCKS


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _draw(figure, log: EnergyLog, energy: np.ndarray, which: str, atoms: int, found) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True)
    figure.set_size_inches(7.0, 5.4)
    per_atom = (energy - energy.mean()) * 1000.0 / atoms
    upper.plot(log.time_ps, per_atom, color=OURS, linewidth=0.6)
    label = f"{found.value:+.3g} ± {found.stderr:.1g} meV/atom/ps"
    upper.plot(log.time_ps, found.value * (log.time_ps - log.time_ps.mean()), color="black", linewidth=1.2, label=label)
    finish(upper, "", f"{which} energy less\nits mean (meV/atom)", legend=True)
    lower.plot(log.time_ps, log.temperature, color="C1", linewidth=0.6)
    finish(lower, "time (ps)", "temperature (K)")
