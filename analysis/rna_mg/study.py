"""Mg at phosphates of RNA: distances and angles of the first shell, and whether anything leaves it.

    python -m analysis.rna_mg.study --quick --engine amber
    python -m analysis.rna_mg.study --site A37 --model NAME --ps 200
    python -m analysis.rna_mg.study --pdb 1l2x.pdb --site all --engine amber

By default one Mg site of 1F27 (which stands in for 1L2X) is carved out and put into water; --whole takes all of the
RNA, with Na to neutralise it, for models whose charges and elements allow it.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from analysis.common.boxes import add_ions, solvate
from analysis.common.figures import legend_below, new_figure, save_figure
from analysis.common.study import Settings, main, study
from analysis.common.table import Row, write_table
from analysis.rna_mg.sites import Crystal, Site, geometry
from omnicalc.analysis import metal_sites
from omnicalc.analysis.plots import MEASURED, finish
from omnicalc.analysis.reference_values import reference
from omnicalc.analysis.report import Quantity
from omnicalc.data.build.prepare import SHIPPED
from omnicalc.errors import InputError

DEFAULT = SHIPPED / "1f27.pdb"
PADDING = 4.5  # Å of water around a fragment
WHOLE_PADDING = 8.0


def run(settings: Settings, pdb: Path | None, site: str | None, whole: bool) -> None:
    crystal = Crystal(pdb or DEFAULT)
    sites = crystal.sites()
    if whole:
        if site is not None:
            raise InputError("--whole takes all sites at once; leave out --site")
        found = {"whole": _simulated(settings, crystal.whole(), WHOLE_PADDING, "whole")}
    else:
        chosen = _chosen(sites, site)
        found = {s.name: _simulated(settings, crystal.fragment(s), PADDING, s.name) for s in chosen}
        sites = chosen
    rows = [row for name, result in found.items() for row in _rows(name, result, crystal, sites)]
    what = "the whole RNA" if whole else f"site{'s' * (len(found) > 1)} {', '.join(found)} carved out, in water"
    write_table(settings.out, rows, settings.title(f"Mg in {crystal.path.name}, {what}"))
    _draw(settings, found, [geometry(crystal, s) for s in sites])


def _chosen(sites: list[Site], wanted: str | None) -> list[Site]:
    if wanted == "all":
        return sites
    found = [s for s in sites if wanted in (None, s.name)][:1]
    if not found:
        there = "; ".join(map(str, sites))
        raise InputError(f"--site {wanted}: no such Mg at a phosphate; there are {there}, or all")
    return found


def _simulated(settings: Settings, solute, padding: float, name: str):
    """Solvated, neutralised, run and analysed."""
    charge = solute.info["charge"]
    boxed = solvate(solute, padding)
    boxed.info = {"charge": 0}
    atoms = add_ions(boxed, {"Cl": charge} if charge > 0 else {"Na": -charge}, np.random.default_rng(settings.seed))
    return metal_sites(**settings.simulate(atoms, name), ion="Mg")


def _rows(name: str, result, crystal: Crystal, sites: list[Site]) -> list[Row]:
    mine = [geometry(crystal, s) for s in sites if name in ("whole", s.name)]

    def crystal_says(key: str, unit: str) -> str:
        values = np.concatenate([g[key] for g in mine])
        return f"crystal: {values.mean():.2f} {unit}" + (f", spread {values.std():.2g}" if len(values) > 1 else "")

    exchanges = len(result.tables["exchanges"]["event"])
    return [
        Row(f"{name}: Mg-O(phosphate)", _of(result, "Mg-O(phosphate)"), "Mg-O peak", crystal_says("phosphate", "Å")),
        Row(f"{name}: Mg-O(water)", _of(result, "Mg-O(water)"), "Mg-O peak", crystal_says("water", "Å")),
        Row(f"{name}: oxygens around Mg", _of(result, "ligands of Mg"), "Mg-O coordination", "within 2.9 Å"),
        Row(f"{name}: O-Mg-O cis", _of(result, "angle L-M-L, cis"), "O-Mg-O cis", crystal_says("cis", "degrees")),
        Row(f"{name}: O-Mg-O trans", _of(result, "angle L-M-L, trans"), "O-Mg-O trans",
            crystal_says("trans", "degrees")),
        Row(f"{name}: P-OP-Mg", _of(result, "angle Mg-O-P"), "P-O-Mg", crystal_says("bend", "degrees")),
        Row(f"{name}: phosphates in the first shell", _of(result, "inner-sphere phosphates"), "", "P per Mg"),
        Row(f"{name}: exchanges of the first shell", str(exchanges), "", "oxygens that came or left"),
    ]  # fmt: skip


def _of(result, name: str) -> Quantity | str:
    try:
        return result[name]
    except KeyError:
        return "none in the run"


def _draw(settings: Settings, found: dict, crystal: list[dict]) -> None:
    figure = new_figure(10.0, 4.6)
    left, right = figure.subplots(1, 2)
    for k, (name, result) in enumerate(found.items()):
        lengths, angles = result.tables["distances"], result.tables["angles"]
        for kind, dashes in (("phosphate", "-"), ("water", "--")):
            left.plot(lengths["r_angstrom"], lengths[f"density_Mg-O_{kind}"], dashes, color=f"C{k}", linewidth=1.2,
                      label=f"{name}: Mg-O({kind})")  # fmt: skip
        degrees, style = angles["angle_degrees"], {"color": f"C{k}", "linewidth": 1.2}
        right.plot(degrees, angles["density_L-M-L"], **style, label=f"{name}: O-Mg-O")
        right.plot(degrees, angles["density_M-O-P"], "--", **style, label=f"{name}: P-OP-Mg")
    for axis, keys in ((left, ("Mg-O peak",)), (right, ("O-Mg-O cis", "O-Mg-O trans", "P-O-Mg"))):
        for n, key in enumerate(keys):
            known = reference(key)
            span = (known.value - known.uncertainty, known.value + known.uncertainty)
            label = None if n else "measured in RNA crystals"
            axis.axvspan(*span, color=MEASURED, alpha=0.13, linewidth=0, label=label)
    for n, g in enumerate(crystal):
        style = {"marker": "|", "linestyle": "none", "color": "C3", "markersize": 9}
        for axis, keys in ((left, ("phosphate", "water")), (right, ("cis", "trans", "bend"))):
            values = np.concatenate([g[key] for key in keys])
            axis.plot(values, np.zeros(len(values)), **style, label=None if n else "this crystal structure")
    left.set_xlim(1.7, 2.5)
    right.set_xlim(60.0, 182.0)
    finish(left, "distance (Å)", "density (1/Å)")
    finish(right, "angle (degrees)", "density (1/degree)")
    for axis in (left, right):
        legend_below(axis, 2)
    figure.suptitle(settings.name, fontsize=9)
    save_figure(figure, settings.out / "figure.png", dpi=100)


OPTIONS = (
    click.Option(["--pdb"], type=click.Path(path_type=Path), metavar="FILE",
                 help="Another structure, such as 1L2X. Default: 1F27."),
    click.Option(["--site"], metavar="NAME",
                 help="Chain and residue number of a Mg, such as A37, or all. Default: the first."),
    click.Option(["--whole"], is_flag=True, help="The whole RNA in place of carved sites."),
)  # fmt: skip
command = study(run, "rna_mg", OPTIONS)

if __name__ == "__main__":
    main(command)
