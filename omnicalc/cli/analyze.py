"""`omnicalc analyze`: a group of analyses, one file each, loaded only when called."""

import click

from omnicalc.cli.lazy import LazyGroup

ANALYSES = {  # verb -> one line of help; kept here so that `omnicalc analyze --help` imports none of them
    "all": "Every analysis that a trajectory allows, in one pass over it.",
    "rdf": "Radial distribution functions and coordination numbers, beside experiment where one is known.",
    "cn": "Coordination numbers over time, and how long neighbours stay.",
    "msd": "Mean squared displacements and diffusion coefficients, corrected for the size of the box.",
    "hbonds": "Hydrogen bonds: counts, occupancies, named sites, lifetimes.",
    "metal": "Sites of metal ions: distances, angles, inner and outer sphere, exchanges.",
    "density": "Mass density and cell over time, and its profile along an axis.",
    "drift": "Energy conservation of a run: slope of the total energy, with its error.",
    "geometry": "Bonds, angles, dihedrals, and the Ramachandran map of peptides.",
    "vdos": "Vibrational density of states, from velocities or positions.",
    "ir": "Infrared spectrum, from fixed charges or from dipoles.",
    "pes": "Errors of relative energies, steps in energy and forces, along labelled frames.",
    "hvap": "Heat of vaporisation, from a run of the liquid and one of the gas.",
}


@click.group(name="analyze", cls=LazyGroup, verbs=ANALYSES, prefix="omnicalc.cli.analyze_", heading="Analyses")
def command():
    """Turn a trajectory into a table and a figure."""
