"""Registers the factory under the names of its entry points, so that the tests need no fresh installation."""

import pytest

from omnicalc.interfaces.openmm import OmniCalcPotentialImplFactory


@pytest.fixture(scope="session")
def MLPotential():  # noqa: N802
    """OpenMM-ML's class, with our names in it."""
    pytest.importorskip("openmmml")
    from openmmml import MLPotential

    for name in ("ubio-s2", "ubio-s3", "omnicalc"):
        MLPotential.registerImplFactory(name, OmniCalcPotentialImplFactory())
    return MLPotential
