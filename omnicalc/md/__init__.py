"""Molecular dynamics: state, integrators, trajectory, restart and the engine that ties them together.

Inside this room: eV, Å, amu, K, and ASE's time unit Å·sqrt(amu/eV), about 10.18 fs (``ase.units.fs`` is one
fs in it), so that m·v² is in eV without a factor. Femtoseconds appear only at the borders, always with
``_fs`` in the name.
"""
