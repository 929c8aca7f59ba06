"""Parity plots: what a potential says against the labels, energies per atom and force components, as PNG."""

from pathlib import Path

import numpy as np

from omnicalc.evaluation import Evaluation
from omnicalc.files import write_atomically

_POINTS = 200_000  # drawn of the force components, evenly over all
_COLOURS = 10


def draw_parity(evaluation: Evaluation, path: Path, key: str = "config_type") -> None:
    """Energies are drawn against the mean of each composition, so that one picture holds different molecules; one
    colour for each value of the frame key ``key`` (the ten largest groups).
    """
    from matplotlib.figure import Figure

    groups: dict[str, list] = {}
    for c in evaluation.frames:
        groups.setdefault(str(c.atoms.info.get(key, "all")), []).append(c)
    names = sorted(groups, key=lambda n: -len(groups[n]))
    lots = [(f"C{k}", name, groups[name]) for k, name in enumerate(names[:_COLOURS])]
    if rest := [c for name in names[_COLOURS:] for c in groups[name]]:  # together: there may be thousands of groups
        lots.append(("0.6", None, rest))
    count = sum(3 * len(c.atoms) for c in evaluation.frames)
    means = _means(evaluation)
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, name, chosen in lots:
        offset = np.array([means[c.atoms.get_chemical_formula()] for c in chosen])
        n = np.array([len(c.atoms) for c in chosen])
        label = np.array([c.label for c in chosen]) / n - offset
        found = np.array([c.energy for c in chosen]) / n - offset
        left.plot(1e3 * label, 1e3 * found, ".", ms=3, color=colour, alpha=0.6, label=name)
        forces = np.concatenate([np.stack([c.label_forces, c.forces]).reshape(2, -1) for c in chosen], axis=1)
        right.plot(*forces[:, :: -(-count // _POINTS)], ".", ms=1.5, color=colour, alpha=0.4)
    for axis, what, unit in ((left, "energy above its composition's mean", "meV/atom"), (right, "force", "eV/Å")):
        ends = [*axis.get_xlim(), *axis.get_ylim()]
        axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color="black", lw=0.8)
        axis.set(xlabel=f"label: {what} ({unit})", ylabel=f"potential ({unit})")
        axis.set_aspect("equal", adjustable="datalim")
    if len(names) > 1:
        left.legend(fontsize=7, frameon=False, markerscale=3, loc="upper left")  # off the diagonal, without a search
    errors = evaluation.errors()
    left.set_title(f"MAE {errors.energy_mae:.2f} meV/atom, relative {errors.relative_energy_mae:.2f}", fontsize=9)
    right.set_title(f"MAE {errors.force_mae:.1f} meV/Å, RMSE {errors.force_rmse:.1f}", fontsize=9)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=140))


def _means(evaluation: Evaluation) -> dict[str, float]:
    """Mean label per atom of every composition, eV."""
    values: dict[str, list[float]] = {}
    for c in evaluation.frames:
        values.setdefault(c.atoms.get_chemical_formula(), []).append(c.label / len(c.atoms))
    return {formula: float(np.mean(v)) for formula, v in values.items()}
