"""The figure of an RDF: a panel per pair, experiment beside it, coordination number on a second axis."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.analysis.experiment import Experiment, experiment_for
from omnicalc.analysis.plots import MEASURED, OURS, band
from omnicalc.analysis.rdf_curves import Curve, PairRDF
from omnicalc.analysis.reference_values import DFT, EXPERIMENT, known_shells

if TYPE_CHECKING:
    from omnicalc.analysis.rdf_result import RDFs

_COUNT = "#3f8f4f"
_OTHERS = ("#d1651a", "#8e4ca8", "#b5a000", "#008b8b")
_KNOWN = {EXPERIMENT: (MEASURED, "--"), DFT: ("#c0392b", ":")}  # other methods are tabulated, not drawn
_PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.8}
_BOND = 1.8  # Å; a first peak below it in a measured-liquid panel is a bond inside the molecule
_PANEL = (4.8, 3.7)  # inches
_LINE = 45  # letters over a panel


def draw_rdfs(figure, rdfs: RDFs) -> None:
    """A panel per pair, onto a matplotlib Figure."""
    label = _plain(rdfs.label)
    n = len(rdfs.pairs)
    columns = min(n, 3)
    rows = math.ceil(n / columns)
    figure.set_size_inches(_PANEL[0] * columns, _PANEL[1] * rows + 1.0)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[n:]:
        axis.remove()
    named: dict[str, object] = {}  # label -> line, for one legend under all panels
    for axis, rdf in zip(axes, rdfs.pairs, strict=False):
        named |= _panel(axis, rdf, rdfs, label)
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    atoms = " ".join(f"{element}{count}" for element, count in rdfs.composition.items())
    left_out = "\npairs inside molecules left out" if rdfs.molecules else ""
    figure.suptitle(
        f"{label}\n{len(rdfs.sampling)} frames, {atoms}, bins of {rdfs.bin_width:g} Å{left_out}", fontsize=10
    )


def _plain(label: str) -> str:
    """A label that matplotlib shows as it is: no mathematics in dollars, no hiding after an underscore."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _wrapped(text: str) -> str:
    """Long selections in several lines."""
    return _plain(textwrap.fill(text, _LINE))


def _panel(axis, rdf: PairRDF, rdfs: RDFs, label: str) -> dict[str, object]:
    """Draw one pair; returns its lines by label."""
    experiment, others = experiment_for(rdf.pair, rdfs.composition), rdfs.curves[rdf.pair]
    bond = experiment is not None and rdf.peak is not None and rdf.peak[0].value < _BOND
    count_axis = axis.twinx()
    axis.set_zorder(count_axis.get_zorder() + 1)  # g above n
    axis.patch.set_visible(False)
    axis.axhline(1.0, color="0.85", linewidth=0.8, zorder=0)
    if experiment is not None:
        _draw_experiment(axis, experiment)
    _draw_known(axis, count_axis, rdf, rdfs)
    for colour, curve in zip(_OTHERS * len(others), others, strict=False):
        band(axis, curve.r, curve.g, curve.g_stderr, colour, _plain(curve.label))
    band(axis, rdf.r, rdf.g, rdf.g_stderr, OURS, label)
    _limits(axis, rdf, experiment, others, bond)
    _mark_shell(axis, rdf, bond)
    _draw_counts(count_axis, rdf)
    axis.set_title(_wrapped("–".join(rdf.pair)), fontsize=11)
    axis.set_xlabel("r (Å)")
    axis.set_ylabel("g(r)")
    lines = [*count_axis.lines, *axis.lines]
    return {line.get_label(): line for line in reversed(lines) if not line.get_label().startswith("_")}


def _draw_experiment(axis, experiment: Experiment) -> None:
    dashes = (0, (4, 2)) if not experiment.without_molecule else (0, (4, 1.5, 1, 1.5))
    label = experiment.label.replace(", without", ",\nwithout")
    axis.plot(experiment.r, experiment.g, color=MEASURED, linewidth=1.1, linestyle=dashes, label=label)
    low, high = experiment.g - experiment.std, experiment.g + experiment.std
    axis.fill_between(experiment.r, low, high, color=MEASURED, alpha=0.15, linewidth=0)


def _draw_known(axis, count_axis, rdf: PairRDF, rdfs: RDFs) -> None:
    """First peaks known as single numbers as upright lines, measured coordination numbers as level ones."""
    for known in known_shells(rdf.pair, rdfs.composition):
        if known.method not in _KNOWN:
            continue
        colour, dashes = _KNOWN[known.method]
        r, error = known.peak.value, known.peak.uncertainty
        axis.axvline(r, color=colour, linestyle=dashes, linewidth=0.9, label=f"peak known from {known.method}")
        if error:
            axis.axvspan(r - error, r + error, color=colour, alpha=0.12, linewidth=0)
        if known.method == EXPERIMENT and known.coordination is not None and known.around in rdf.around:
            style = {"color": _COUNT, "linestyle": "--", "linewidth": 0.8}
            count_axis.axhline(known.coordination.value, label=f"measured n, {known.around}", **style)


def _limits(axis, rdf: PairRDF, experiment: Experiment | None, others: list[Curve], bond: bool) -> None:
    """Axes that show the liquid: bonds inside a molecule, ten times higher, are cut, their height written."""
    low = _BOND if bond else 0.0
    tops = [
        rdf.g[rdf.r > low].max(initial=1.0),
        *(curve.g[curve.r > low].max(initial=1.0) for curve in others),
    ]
    if experiment is not None:
        tops.append(experiment.g[experiment.r <= rdf.r[-1]].max(initial=1.0))
    axis.set_ylim(0, max(tops) * 1.16)
    onset = float(rdf.r[np.argmax(rdf.g > 0.01)]) if (rdf.g > 0.01).any() else 0.0
    axis.set_xlim(max(0.0, math.floor((onset - 0.3) * 2) / 2), rdf.r[-1])


def _mark_shell(axis, rdf: PairRDF, bond: bool) -> None:
    if rdf.peak is None:
        return
    r, g = rdf.peak[0].value, rdf.peak[1].value
    style = {"textcoords": "offset points", "fontsize": 8, "color": OURS, "bbox": _PAPER}
    if bond:
        top = axis.get_ylim()[1]
        axis.annotate(f"{r:.2f} Å,\nup to {g:.1f}", (r, top * 0.985), xytext=(10, 0), va="top", **style)
        return
    axis.annotate(f"{r:.2f} Å, {g:.2f}", (r, g), xytext=(5, 5), **style)
    axis.plot([r], [g], marker="o", markersize=3.5, color=OURS)
    if rdf.minimum is not None:
        r, g = rdf.minimum[0].value, rdf.minimum[1].value
        axis.plot([r], [g], marker="o", markersize=3.5, color=OURS)
        low = g < 0.12 * axis.get_ylim()[1]
        axis.annotate(f"{r:.2f} Å, {g:.2f}", (r, g), xytext=(0, 8 if low else -14), ha="center", **style)


def _draw_counts(axis, rdf: PairRDF) -> None:
    """n(r) of the first direction, up to a few times the first shell, so that its plateau can be read."""
    (name, counts) = next(iter(rdf.around.items()))
    axis.plot(rdf.r, counts, color=_COUNT, linewidth=1.0, linestyle=":", label="running coordination number n(r)")
    shell = rdf.coordination.get(name)
    top = counts[-1] if shell is None else min(counts[-1], 4.0 * shell.value)
    axis.set_ylim(0, max(top, 1e-6) * 1.05)
    axis.set_ylabel(_wrapped(f"n(r), {name}"), color=_COUNT)
    axis.tick_params(axis="y", colors=_COUNT)
