"""Liquid water: structure, hydrogen bonds and diffusion of a model or of TIP3P, beside experiment.

python -m analysis.water.study --quick
python -m analysis.water.study --engine amber --ps 200
"""

from __future__ import annotations

import click
import numpy as np

from analysis.common.boxes import water_box
from analysis.common.figures import legend_below, new_figure, save_figure
from analysis.common.study import TEMPERATURE, Settings, main, study
from analysis.common.table import Row, of_value, write_table
from omnicalc.analysis import diffusion, hydrogen_bonds, radial_distributions
from omnicalc.analysis.experiment import experiment_for
from omnicalc.analysis.plots import MEASURED, OURS, band, finish
from omnicalc.analysis.reference_values import reference
from omnicalc.analysis.report import Quantity

PAIRS = ("O-O", "O-H", "H-H")


def run(settings: Settings, tiles: int) -> None:
    atoms = water_box((tiles,) * 3)
    what = settings.simulate(atoms, "run")
    distributions = radial_distributions(**what, pairs=list(PAIRS), exclude_molecule=True)
    moved = diffusion(**what, temperature=TEMPERATURE)
    bonds = hydrogen_bonds(**what)
    oo, oh, hh = distributions.pairs
    rows = [
        Row("O-O first peak", of_value(oo.peak and oo.peak[0], "Å"), "O-O peak"),
        Row("O-O height of it", of_value(oo.peak and oo.peak[1]), "O-O height"),
        Row("O-O first minimum", of_value(oo.minimum and oo.minimum[0], "Å"), "O-O minimum"),
        Row("O around O, within 3.3 Å", _within(oo, 3.3), "O-O coordination"),
        Row("O...H hydrogen bond, peak", of_value(oh.peak and oh.peak[0], "Å"), "O-H peak"),
        Row("O...H height of it", of_value(oh.peak and oh.peak[1]), "O-H height"),
        Row("H...H first peak", of_value(hh.peak and hh.peak[0], "Å"), "H-H peak"),
        Row("H...H height of it", of_value(hh.peak and hh.peak[1]), "H-H height"),
        Row("hydrogen bonds of a molecule", bonds["bonds of each H2O to H2O"], "water hydrogen bonds",
            "H...O < 2.5 Å and angle > 120° here, looser than the criterion of the source"),
        Row("diffusion coefficient", moved["D(H2O), infinite box"], "water diffusion",
            f"corrected for the box with water's measured viscosity; {moved['D(H2O) in this box'].note}"),
    ]  # fmt: skip
    title = settings.title(f"{len(atoms) // 3} waters in a cube of {atoms.cell.lengths()[0]:.2f} Å")
    write_table(settings.out, rows, title)
    _draw(settings, distributions, moved)


def _within(rdf, radius: float) -> Quantity:
    """Running coordination number at a distance, Å."""
    (name, counts) = next(iter(rdf.around.items()))
    return Quantity(name, float(np.interp(radius, rdf.r, counts)), None, "")


def _draw(settings: Settings, distributions, moved) -> None:
    figure = new_figure(11.0, 7.4)
    axes = figure.subplots(2, 2).ravel()
    for axis, rdf in zip(axes, distributions.pairs, strict=False):
        known = experiment_for(rdf.pair, distributions.composition)
        inside = known.r < rdf.r[-1]
        axis.plot(known.r[inside], known.g[inside], color=MEASURED, linestyle="--", linewidth=1.1, 
                  label=known.label.split(", without")[0])  # fmt: skip
        band(axis, rdf.r, rdf.g, rdf.g_stderr, OURS, settings.name)
        finish(axis, "r (Å)", f"g(r), {'–'.join(rdf.pair)}, between molecules")
        legend_below(axis)
        axis.set_xlim(1.0, rdf.r[-1])
        axis.set_ylim(bottom=0)
    curves = moved.tables["curves"]
    error = curves["msd_H2O_stderr"]
    band(axes[3], curves["lag_ps"], curves["msd_H2O_angstrom2"], error, OURS, settings.name)
    behind = curves["lag_ps"] >= 0.2 * curves["lag_ps"][-1]
    time, squares = curves["lag_ps"][behind], curves["msd_H2O_angstrom2"][behind]
    line = squares[0] + 0.6 * reference("water diffusion").value * (time - time[0])
    label = "slope of water, measured, 298 K, in an endless box"
    axes[3].plot(time, line, color=MEASURED, linestyle="--", linewidth=1.1, label=label)
    finish(axes[3], "t (ps)", "mean squared displacement (Å²)")
    legend_below(axes[3])
    save_figure(figure, settings.out / "figure.png", dpi=100)


OPTIONS = (
    click.Option(["--tiles"], type=click.IntRange(1, 6), default=1, show_default=True,
                 help="Edge of the box in units of 12.44 Å (64 waters each)."),
)  # fmt: skip
command = study(run, "water", OPTIONS)

if __name__ == "__main__":
    main(command)
