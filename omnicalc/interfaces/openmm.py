"""Entry point of the OpenMM-ML plugin (group ``openmmml.potentials``).

    from openmmml import MLPotential
    system = MLPotential("ubio-s3").createSystem(topology)
    system = MLPotential("omnicalc", modelPath="./weights").createMixedSystem(topology, mm_system, ml_atoms)

See :class:`omnicalc.interfaces.openmm_system.OmniCalcPotentialImpl` for the options.

``import openmmml`` loads the factories of all plugins, whether they are wanted or not. So this module imports nothing
but the standard library: no torch, no model, and no openmmml either, which would be a circle whenever this module comes
first. The factory is therefore one by its method, not by inheritance; OpenMM-ML asks for no more.
"""

from omnicalc.errors import InputError

GENERIC = "omnicalc"  # the name of the potential that takes any weights, by ``modelPath``
INSTALL = "pip install 'omnicalc[openmm]'"


class OmniCalcPotentialImplFactory:
    """Makes what stands behind ``MLPotential(name, **options)``."""

    def createImpl(self, name: str, **options):  # noqa: N802 (OpenMM-ML's name)
        """The implementation for a registered name.

        Raises:
            InputError: openmm or openmmml is missing or too old; an option that there is not.
            WeightsError: no such weights.
        """
        try:
            from omnicalc.interfaces.openmm_system import OmniCalcPotentialImpl
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("openmm", "openmmml"):
                raise
            raise InputError(f"the OpenMM interface needs openmm and openmmml, but {error}; type: {INSTALL}") from None
        return OmniCalcPotentialImpl(name, **options)
