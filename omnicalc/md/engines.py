"""Who takes the steps of a run: this package, for point-like or quantum nuclei, or OpenMM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicalc.md.dynamics import Dynamics

if TYPE_CHECKING:
    from omnicalc.md.job import Job
    from omnicalc.md.settings import Settings


def dynamics_of(job: Job, settings: Settings) -> Dynamics:
    """The dynamics that ``settings`` ask for; OpenMM is loaded only when it is to be used.

    Raises :class:`omnicalc.errors.InputError` for what cannot be.
    """
    if settings.beads:
        from omnicalc.md.ring_polymer import RingPolymer

        return RingPolymer(job, settings)
    if settings.engine == "openmm":
        from omnicalc.interfaces.openmm_dynamics import OpenMMDynamics

        return OpenMMDynamics(job, settings)
    return Dynamics(job, settings)
