"""Molecular dynamics: state, integrators, barostats, guards, restart and the engine that ties them together.

Inside this room: eV, Å, amu, K, and ASE's time unit Å·sqrt(amu/eV), about 10.18 fs (``ase.units.fs`` is one
fs in it), so that m·v² is in eV without a factor. Femtoseconds and bar appear only at the borders, always with
``_fs`` or ``_bar`` in the name.

- ``settings`` says what is asked for, ``dynamics`` binds it to the atoms of a ``job``: a function from one ``state`` to
  the next. ``integrators`` (velocity Verlet, BAOAB), ``bussi``, ``nose_hoover`` and ``quantum`` are its thermostats,
  ``cell_rescaling`` and ``monte_carlo`` its barostats, ``forces`` what they call.
- ``engines`` chooses who takes the steps: ``dynamics``, ``ring_polymer`` (path integrals) or OpenMM.
- ``constraints`` holds the bonds of ``constraint_list``.
- ``replicas`` are runs in lock-step, their force calls one batch by ``gang``; ``plan`` says what a run will need.
- ``guards`` watch, ``bond_watch`` over bonds; ``guard_settings`` says over what.
- ``run`` and ``loop`` take the state through a folder: ``trajectory``, ``frames`` (filled by
  ``snapshot``), ``restart``, ``record`` (with ``mass_record``).

log.csv has step, time, potential, kinetic and total energy and temperature; then ``conserved_eV`` where there is such
an energy (all but stochastic cell rescaling, and a Nosé-Hoover chain on a ramp), and with a barostat ``volume_A3`` and
``pressure_bar``, and with beads the two estimators of the kinetic energy.
"""
