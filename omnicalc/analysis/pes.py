"""Errors of a potential-energy surface along a trajectory: two sets of energies and forces of the same frames.

    relative       mean_i |(E_i - E_0) - (E'_i - E'_0)| * 100 / N      against the first frame, per 100 atoms
    consecutive    mean_i |(E_i - E_i-1) - (E'_i - E'_i-1)|            from frame to frame
    forces         mean over atoms and components of |F - F'|

E is the reference, E' the prediction, N the number of atoms: the measures of Table 2 of the UBio-MolFM report. Levels
of theory differ in the zero of their energies, which both differences are free of. Frames of different composition
may follow each other: each composition has its own first frame, and a step between two of them is none.
Errors are jackknives over blocks of frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from scipy import constants

from omnicalc.analysis.blocks import block_mean, block_of, check_blocks, choose_blocks, ratio_mean
from omnicalc.analysis.plots import MEASURED, OURS, finish
from omnicalc.analysis.quiet import quietly
from omnicalc.analysis.report import Quantity, Result
from omnicalc.errors import InputError

Keys = tuple[str, str]
STANDARD: Keys = ("energy", "forces")
_KCAL = constants.e * constants.N_A / (1000 * constants.calorie)  # kcal/mol in an eV
_SAME = 1e-3  # Å


@dataclass(frozen=True)
class _Step:
    formula: str
    n_atoms: int
    energies: tuple[float, float]  # eV
    force_error: tuple[float, float, float]  # sums of |dF| and dF², and the number of components
    force_size: float  # sum of |F|


def pes_errors(
    reference, predicted=None, *, keys: Keys = STANDARD, predicted_keys: Keys | None = None, n_blocks: int = 10
) -> Result:
    """Compare energies and forces of two files of the same frames, or of two sets of labels in one file.

    Args:
        reference, predicted: files that ASE reads, such as extended XYZ; without ``predicted`` the reference file
            holds both sets of labels.
        keys, predicted_keys: names of energy and forces in the files; ``predicted_keys`` are ``keys`` unless given.
        n_blocks: for error bars.

    Raises:
        InputError: a file cannot be read, a frame lacks labels or is not finite, or the frames differ.
    """
    check_blocks(n_blocks)
    one_file = predicted is None
    if one_file and (predicted_keys is None or predicted_keys == keys):
        raise InputError(
            "one file needs two sets of labels: name those of the prediction with --predicted-keys ENERGY,FORCES, or "
            "give a second file"
        )
    path, other = Path(reference), Path(reference if one_file else predicted)
    steps = list(_steps(path, other, keys, predicted_keys or keys))
    if len(steps) < 2:
        raise InputError(f"{path} holds {len(steps)} frame; relative energies need two or more")
    return _result(path, other, steps, keys, predicted_keys or keys, n_blocks)


def _steps(path: Path, other: Path, keys: Keys, other_keys: Keys) -> Iterator[_Step]:
    frames = _frames(path)
    pairs = ((a, a) for a in frames) if path == other else zip_longest(frames, _frames(other))
    for k, (a, b) in enumerate(pairs):
        if a is None or b is None:
            short, long = (path, other) if a is None else (other, path)
            raise InputError(f"{short} ends after {k} frames, and {long} goes on; both need the same frames")
        _same_frame(k, a, b, path, other)
        (e, f), (e2, f2) = _labels(k, a, path, keys), _labels(k, b, other, other_keys)
        off = np.abs(f2 - f)
        sums = float(off.sum()), float((off**2).sum()), float(off.size)
        yield _Step(a.get_chemical_formula(), len(a), (e, e2), sums, float(np.abs(f).sum()))


def _frames(path: Path) -> Iterator:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file of labelled frames, such as extended XYZ")
    from ase.io import iread

    source = None
    try:
        with quietly():
            source = iread(path, index=":")
            while (atoms := next(source, None)) is not None:
                yield atoms
    except Exception as error:  # the readers raise whatever their parsers met
        if isinstance(error, InputError | GeneratorExit):
            raise
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error})") from None


def _labels(k: int, atoms, path: Path, keys: Keys) -> tuple[float, np.ndarray]:
    known = {} if atoms.calc is None else atoms.calc.results
    energy = known.get(keys[0], atoms.info.get(keys[0]))
    forces = known.get(keys[1], atoms.arrays.get(keys[1]))
    if energy is None or forces is None:
        names = set(known) & set(STANDARD) | set(atoms.info) | set(atoms.arrays) - {"numbers", "positions"}
        there = ", ".join(sorted(names)) or "no labels"
        raise InputError(
            f"frame {k} of {path} has no {keys[0] if energy is None else keys[1]}; there are {there} (choose with "
            f"--keys and --predicted-keys)"
        )
    try:
        energy, forces = float(energy), np.asarray(forces, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"frame {k} of {path}: {keys[0]} or {keys[1]} are not numbers") from None
    if forces.shape != (len(atoms), 3):
        raise InputError(f"frame {k} of {path}: {keys[1]} have the shape {forces.shape}, not {(len(atoms), 3)}")
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise InputError(f"frame {k} of {path} has an energy or forces that are not finite; leave it out")
    return energy, forces


def _same_frame(k: int, a, b, path: Path, other: Path) -> None:
    if a is b:
        return
    if len(a) != len(b) or (a.numbers != b.numbers).any():
        raise InputError(f"frame {k} holds {a.get_chemical_formula()} in {path} and {b.get_chemical_formula()} in "
                         f"{other}, or another order of atoms; both need the same frames")  # fmt: skip
    away = a.positions - b.positions
    if a.pbc.any() and a.cell.volume > 1e-9:
        fractions = np.linalg.solve(a.cell.array.T, away.T).T
        away = (fractions - np.where(a.pbc, np.round(fractions), 0.0)) @ a.cell.array
    if len(a) and np.abs(away).max() > _SAME:
        atom = int(np.abs(away).max(axis=1).argmax())
        raise InputError(
            f"frame {k}: atom {atom} lies {np.linalg.norm(away[atom]):.3g} Å apart in {path} and {other}; "
            f"both need the same frames"
        )


def _result(path: Path, other: Path, steps: list[_Step], keys: Keys, other_keys: Keys, n_blocks: int) -> Result:
    blocks = choose_blocks(len(steps), n_blocks)
    n = np.array([s.n_atoms for s in steps], dtype=float)
    energy = np.array([s.energies for s in steps]) * 1000.0  # meV
    relative, step = np.full((len(steps), 2), np.nan), np.full((len(steps), 2), np.nan)
    first: dict[str, int] = {}
    for k, s in enumerate(steps):
        start = first.setdefault(s.formula, k)
        relative[k] = energy[k] - energy[start]
        if k and steps[k - 1].formula == s.formula:
            step[k] = energy[k] - energy[k - 1]
    off_relative = np.abs(relative[:, 1] - relative[:, 0]) * 100.0 / n
    off_relative[list(first.values())] = np.nan  # zero by definition
    off_step = np.abs(step[:, 1] - step[:, 0])
    forces = np.array([s.force_error for s in steps])
    label = block_of(np.arange(len(steps)), len(steps), blocks)
    force, force_error = ratio_mean(1000.0 * forces[:, 0] / forces[:, 2], forces[:, 2], label, blocks)
    squares = forces[:, 1].sum() / forces[:, 2].sum()
    size = sum(s.force_size for s in steps) / forces[:, 2].sum() * 1000.0
    relative_mae, relative_error = block_mean(off_relative, blocks)
    step_mae, step_error = block_mean(off_step, blocks)
    per_hundred, steps_are = block_mean(off_step * 100.0 / n, 0)[0], block_mean(np.abs(step[:, 0]), 0)[0]
    against = f"against the first frame; {relative_mae / 1000 * _KCAL:.4g} kcal/mol"
    to_next = f"frame to frame; {per_hundred:.4g} meV per 100 atoms; steps are {steps_are:.4g} meV"
    quantities = [
        Quantity("relative energy, MAE per 100 atoms", relative_mae, relative_error, "meV", against),
        Quantity("consecutive energy difference, MAE", step_mae, step_error, "meV", to_next),
        Quantity("forces, MAE", force, force_error, "meV/Å", f"per component; mean size {size:.4g} meV/Å"),
        Quantity("forces, RMSE", float(np.sqrt(squares)) * 1000.0, None, "meV/Å", "per component"),
    ]
    tables = {
        "frames": {
            "frame": np.arange(len(steps)),
            "atoms": n.astype(int),
            "relative_reference_meV": relative[:, 0],
            "relative_predicted_meV": relative[:, 1],
            "relative_error_meV_per_100_atoms": off_relative,
            "step_reference_meV": step[:, 0],
            "step_predicted_meV": step[:, 1],
            "step_error_meV": off_step,
            "force_mae_meV_angstrom": forces[:, 0] / forces[:, 2] * 1000.0,
        }
    }
    notes = [] if blocks else [f"too few frames for error bars ({len(steps)}); ten or more give them"]
    if len(first) > 1:
        notes.append(f"{len(first)} compositions, each against its own first frame")
    formulas = ", ".join(list(first)[:4]) + ("" if len(first) <= 4 else f" and {len(first) - 4} more")
    head = [f"{path} ({', '.join(keys)}) and {other} ({', '.join(other_keys)}): {len(steps)} frames of {formulas}"]
    settings = {"keys": list(keys), "predicted_keys": list(other_keys), "frames": len(steps), "blocks": blocks}
    sources = [path] if path == other else [path, other]
    return Result("pes", sources, head, settings, quantities, tables, notes,
                  lambda figure: _draw(figure, relative, step, off_relative, n))  # fmt: skip


def _draw(figure, relative, step, off_relative, n) -> None:
    figure.set_size_inches(7.4, 6.6)
    axes = figure.subplots(3, 1, sharex=True)
    frames = np.arange(len(n))
    scale = 100.0 / n
    axes[0].plot(frames, relative[:, 0] * scale, color=MEASURED, linewidth=1.2, label="reference")
    axes[0].plot(frames, relative[:, 1] * scale, color=OURS, linewidth=1.0, linestyle="--", label="predicted")
    finish(axes[0], "", "E - E(first)\n(meV per 100 atoms)", legend=True)
    axes[1].plot(frames, off_relative, color="C1", linewidth=0.9, label=f"mean {np.nanmean(off_relative):.3g}")
    finish(axes[1], "", "error of E - E(first)\n(meV per 100 atoms)", legend=True)
    axes[2].plot(frames, np.abs(step[:, 0]), color=MEASURED, linewidth=0.9, label="|ΔE| reference")
    axes[2].plot(frames, np.abs(step[:, 1] - step[:, 0]), color="C3", linewidth=0.9, label="error of ΔE")
    if (np.abs(step[np.isfinite(step)]) > 0).any():
        axes[2].set_yscale("log")
    finish(axes[2], "frame", "|ΔE| from the frame\nbefore (meV)", legend=True)
