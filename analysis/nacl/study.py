"""Aqueous NaCl: hydration shells of both ions and the pairs they make, of a model or of Joung-Cheatham ions in TIP3P.

python -m analysis.nacl.study --quick
python -m analysis.nacl.study --molar 0.15 --engine amber --ps 200
python -m analysis.nacl.study --molar 1 --engine amber --ps 200
"""

from __future__ import annotations

from itertools import cycle

import click
import numpy as np

from analysis.common.boxes import add_ions, pairs_for, water_box
from analysis.common.figures import legend_below, new_figure, save_figure
from analysis.common.study import Settings, main, study
from analysis.common.table import Row, of_value, write_table
from omnicalc.analysis import coordination_numbers, radial_distributions
from omnicalc.analysis.plots import MEASURED, OURS, band, finish
from omnicalc.analysis.reference_values import DFT, EXPERIMENT, references
from omnicalc.errors import InputError

NA_CUTOFF, CL_CUTOFFS = 3.2, (3.84, 4.04)  # Å; the latter two are those of the numbers in the literature
ENOUGH_PAIRS = 4  # ion pairs in a box from which Na-Cl is more than an anecdote
CONTACT, SEPARATED = (2.2, 3.6), (3.8, 6.0)  # Å, where the two peaks of Na-Cl are looked for


def run(settings: Settings, molar: float, tiles: int | None) -> None:
    if not 0 < molar <= 6:
        raise InputError(f"--molar {molar:g} is no solution of NaCl; give mol/L above 0 and up to 6")
    box = water_box((tiles or (1 if settings.quick else 2),) * 3)
    pairs = pairs_for(molar, box)
    atoms = add_ions(box, {"Na": pairs, "Cl": pairs}, np.random.default_rng(settings.seed))
    true = pairs / 6.02214076e-4 / atoms.get_volume()
    what = settings.simulate(atoms, "run")
    distributions = radial_distributions(**what, pairs=["Na-O", "Cl-O", "Na-Cl"], bin_width=0.04)
    na_o, cl_o, na_cl = distributions.pairs
    sodium = coordination_numbers(**what, pairs=["Na-O"], cutoff=NA_CUTOFF)
    chloride = [coordination_numbers(**what, pairs=["Cl-O"], cutoff=c) for c in CL_CUTOFFS]
    residence = next(q for q in sodium.quantities if q.name.startswith("residence time") and "counted" in q.name)
    few = "" if pairs >= ENOUGH_PAIRS else f"{pairs} pair{'s' * (pairs > 1)} in the box: says nothing of pairing"
    rows = [
        Row("Na-O first peak", of_value(na_o.peak and na_o.peak[0], "Å"), "Na-O peak"),
        Row("O around Na", sodium["n(O around Na)"], "Na-O coordination", f"ours within {NA_CUTOFF} Å"),
        Row("stay of a water at Na", residence, "", f"absences under 0.5 ps do not count; {residence.note}"),
        Row("Cl-O first peak", of_value(cl_o.peak and cl_o.peak[0], "Å"), "Cl-O peak"),
        *(Row(f"O around Cl, within {c} Å", one["n(O around Cl)"], "Cl-O coordination", "mind the cutoffs")
          for c, one in zip(CL_CUTOFFS, chloride, strict=True)),
        Row("Na-Cl contact pair", _peak(na_cl, CONTACT), "Na-Cl peak", few),
        Row("Na-Cl separated pair", _peak(na_cl, SEPARATED), "Na-Cl separated", few),
    ]  # fmt: skip
    edge = atoms.cell.lengths()[0]
    waters = int((atoms.arrays["residuenames"] == "HOH").sum()) // 3
    write_table(settings.out, rows, settings.title(
        f"{pairs} NaCl and {waters} waters in a cube of {edge:.2f} Å ({true:.2f} mol/L; {molar:g} asked)"))  # fmt: skip
    _draw(settings, distributions, few)


def _peak(rdf, window: tuple[float, float]) -> str:
    """Highest bin of Na-Cl inside a window, in words: with few pairs a fit would promise too much."""
    inside = (rdf.r > window[0]) & (rdf.r < window[1])
    r, g = rdf.r[inside], rdf.g[inside]
    if not len(g) or g.max() == 0:
        return "never seen"
    return f"{r[np.argmax(g)]:.2f} Å (g = {g.max():.2g})"


def _draw(settings: Settings, distributions, few: str) -> None:
    figure = new_figure(12.0, 4.6)
    for axis, rdf in zip(figure.subplots(1, 3), distributions.pairs, strict=True):
        name = rdf.name
        for method, colour in ((EXPERIMENT, MEASURED), (DFT, "#c0392b")):
            known = [r for feature in ("peak", "separated") for r in references(f"{name} {feature}", method)]
            for value, dashes in zip(known, cycle(("--", ":", "-.")), strict=False):
                axis.axvline(value.value, color=colour, linestyle=dashes, linewidth=0.9,
                             label=f"{method}: {value.value:g} Å ({value.condition})")  # fmt: skip
        band(axis, rdf.r, rdf.g, rdf.g_stderr, OURS, settings.name)
        finish(axis, "r (Å)", f"g(r), {'–'.join(rdf.pair)}")
        legend_below(axis)
        axis.set_xlim(2.0, rdf.r[-1])
        axis.set_ylim(bottom=0)
        if name == "Na-Cl" and few:
            axis.set_title(few, fontsize=8)
    save_figure(figure, settings.out / "figure.png", dpi=100)


OPTIONS = (
    click.Option(["--molar"], type=float, default=0.15, show_default=True, metavar="MOL/L",
                 help="Concentration; one ion pair at least."),
    click.Option(["--tiles"], type=click.IntRange(1, 6),
                 help="Edge of the box in units of 12.44 Å. Default: 2 (512 waters), with --quick 1."),
)  # fmt: skip
command = study(run, "nacl", OPTIONS)

if __name__ == "__main__":
    main(command)
