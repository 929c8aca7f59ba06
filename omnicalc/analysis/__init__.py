"""Tables and figures from trajectories. Knows files and atoms, never models, never torch.

One function per verb of ``omnicalc analyze``: each takes a trajectory file, the folder of a run or an MDAnalysis
Universe, and returns a result with units and error bars (``.to_csv()``, ``.to_json()``, ``.plot()``).
"""

from importlib import import_module

_WHERE = {  # loaded when first used
    "radial_distributions": "rdf",
    "coordination_numbers": "coordination",
    "diffusion": "msd",
    "hydrogen_bonds": "hbonds",
    "metal_sites": "metal",
    "densities": "density",
    "energy_drift": "drift",
    "geometries": "geometry",
    "vibrational_spectrum": "vdos",
    "infrared_spectrum": "ir",
    "pes_errors": "pes",
    "heat_of_vaporisation": "hvap",
    "analyze_all": "every",
    "as_trajectory": "sources",
}
__all__ = list(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
