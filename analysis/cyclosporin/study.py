"""Cyclosporin A, open in water and closed in vacuum: which of its internal hydrogen bonds hold.

    python -m analysis.cyclosporin.study --quick --engine amber
    python -m analysis.cyclosporin.study --model NAME --ps 200
    python -m analysis.cyclosporin.study --model NAME --ps 200 --state closed

OpenMM ships no parameters for N-methyl residues. So ``--engine amber`` runs Ace-Ala-Nme in place of cyclosporin, whose
one internal bond (Nme NH to Ace CO, the C7 ring) is asked the same question: does it hold in vacuum, and open in water?
"""

from __future__ import annotations

from collections.abc import Mapping

import click
import numpy as np
from ase import Atoms
from ase.io import read

from analysis.common.boxes import STRUCTURES, label, numbered, solvate
from analysis.common.figures import legend_below, new_figure, save_figure
from analysis.common.study import Settings, main, study
from analysis.common.table import Row, write_table
from omnicalc.analysis import hydrogen_bonds
from omnicalc.analysis.plots import finish

PADDING = 6.0  # Å of water around the solute
STATES = {"open": "water", "closed": "vacuum"}
FILES = {"open": "csa_open_model.xyz", "closed": "csa_closed_addH.xyz"}
# donor to acceptor, residues from MeBmt1 (as PDB files count them): indices of N and O in the files
BONDS: Mapping[str, dict[str, tuple[int, int]]] = {
    "D-Ala8 NH - MeLeu6 CO (DAL1-NH to MLE10-CO)": {"open": (25, 20), "closed": (4, 34)},
    "Val5 NH - Sar3 CO (VAL9-NH to SAR7-CO)": {"open": (13, 8), "closed": (28, 26)},
    "Abu2 NH - Val5 CO": {"open": (45, 16), "closed": (19, 32)},
    "Val5 NH - Abu2 CO": {"open": (13, 4), "closed": (28, 23)},
    "Ala7 NH - MeVal11 CO": {"open": (21, 40), "closed": (1, 14)},
}
REPORT = {
    "D-Ala8 NH - MeLeu6 CO (DAL1-NH to MLE10-CO)": "followed by the report",
    "Val5 NH - Sar3 CO (VAL9-NH to SAR7-CO)": "followed by the report",
}


def run(settings: Settings, wanted: str) -> None:
    states = STATES if wanted == "both" else {wanted: STATES[wanted]}
    peptide = settings.engine == "amber"
    bonds = {"Nme NH - Ace CO (C7)": {state: (16, 5) for state in states}} if peptide else BONDS
    solutes = {state: _dipeptide() if peptide else cyclosporin(state) for state in states}
    found = {}
    for state, place in states.items():
        atoms = solutes[state] if place == "vacuum" else solvate(solutes[state], PADDING)
        what = settings.simulate(atoms, f"{state}_{place}")
        sites = {name: f"index {pair[state][0]}->index {pair[state][1]}" for name, pair in bonds.items()}
        found[state] = (solutes[state], sites, hydrogen_bonds(**what, sites=list(sites.values())))
    rows = [row for name in bonds for row in _rows(name, found)]
    what = "Ace-Ala-Nme (no Amber parameters for cyclosporin's N-methyl residues)" if peptide else "cyclosporin A"
    where = " and ".join(f"{state} in {place}" for state, place in states.items())
    write_table(settings.out, rows, settings.title(f"{what}, {where}"))
    _draw(settings, found)


def cyclosporin(state: str) -> Atoms:
    """One form of cyclosporin A, labelled, without a cell."""
    atoms = read(STRUCTURES / FILES[state])
    return numbered(label(atoms, [f"{e}{k}"[:5] for k, e in enumerate(atoms.symbols)], "CSA", 1, 1))


def _dipeptide() -> Atoms:
    atoms = read(STRUCTURES / "alanine_dipeptide.pdb", format="proteindatabank")
    names, residues = (np.array([str(x).strip() for x in atoms.arrays[key]]) for key in ("atomtypes", "residuenames"))
    bare = label(Atoms(atoms.numbers, positions=atoms.positions), list(names), "ACE", 1, 1)
    bare.set_array("residuenames", residues.astype("<U5"))
    bare.arrays["residuenumbers"] = atoms.arrays["residuenumbers"].astype(int)
    return numbered(bare)


def _rows(name: str, found: dict) -> list[Row]:
    rows = []
    for state, (solute, sites, result) in found.items():
        place = STATES[state]
        site = sites[name]
        start = _shortest(solute, site)
        remark = "; ".join(part for part in (f"H...O {start:.2f} Å in the structure", REPORT.get(name, "")) if part)
        rows.append(Row(f"{name}, {state} in {place}: occupancy", result[f"occupancy {site}"], "", remark))
        rows.append(Row(f"{name}, {state} in {place}: H...O", result[f"H...A {site}"]))
    return rows


def _shortest(solute: Atoms, site: str) -> float:
    """H...O distance (Å) of a site in the structure as it was read: of the hydrogen on the donor."""
    donor, acceptor = (int(part.split()[1]) for part in site.split("->"))
    hydrogens = np.flatnonzero(solute.numbers == 1)
    own = hydrogens[np.linalg.norm(solute.positions[hydrogens] - solute.positions[donor], axis=1) < 1.2]
    return float(np.linalg.norm(solute.positions[own] - solute.positions[acceptor], axis=1).min())


def _draw(settings: Settings, found: dict) -> None:
    figure = new_figure(5.5 * len(found), 4.8)
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for axis, (state, (_, sites, result)) in zip(panels, found.items(), strict=True):
        series = result.tables["series"]
        for k, name in enumerate(sites):
            time = series.get("time_ps", series["frame"])
            axis.plot(time, series[f"site{k}_distance_HA_angstrom"], linewidth=0.8, color=f"C{k}", label=name)
        axis.axhline(2.5, color="0.3", linestyle=":", linewidth=0.9, label="a bond below 2.5 Å")
        finish(axis, "time (ps)", "H...O distance (Å)")
        name = settings.name if STATES[state] == "water" else settings.name.removeprefix("TIP3P and ")
        axis.set_title(f"{state} in {STATES[state]}, {name}", fontsize=9)
        legend_below(axis)
    save_figure(figure, settings.out / "figure.png", dpi=100)


OPTIONS = (
    click.Option(["--state", "wanted"], type=click.Choice(["both", *STATES]), default="both", show_default=True,
                 help="Open in water, which costs ten times as much, or closed in vacuum, or both."),
)  # fmt: skip
command = study(run, "cyclosporin", OPTIONS)

if __name__ == "__main__":
    main(command)
