"""The entry point is light: OpenMM-ML loads it in every program that imports OpenMM-ML at all."""

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from omnicalc.interfaces.openmm import GENERIC
from omnicalc.registry import list_models

GROUP = "openmmml.potentials"
HEAVY = "{'torch', 'numpy', 'ase', 'openmm', 'openmmml', 'omnicalc.registry'}"


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_module_loads_nothing():
    code = "import sys, omnicalc.interfaces.openmm as m; m.OmniCalcPotentialImplFactory()"
    assert python(f"{code}; print({HEAVY} & set(sys.modules))") == "set()"


@pytest.mark.skipif(find_spec("openmmml") is None, reason="openmmml is not installed")
@pytest.mark.parametrize("first", ["openmmml", "omnicalc.interfaces.openmm"])
def test_openmmml_with_our_factory_loads_no_torch(first):
    """Whichever of the two comes first."""
    code = (
        f"import sys, {first}, openmmml\n"
        "from omnicalc.interfaces.openmm import OmniCalcPotentialImplFactory\n"
        "openmmml.MLPotential.registerImplFactory('ubio-s3', OmniCalcPotentialImplFactory())\n"
        "print({'torch', 'ase'} & set(sys.modules))"
    )
    assert python(code) == "set()"


@pytest.mark.parametrize("missing", ["openmm", "openmmml"])
def test_what_is_missing_is_one_message(missing):
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from omnicalc.errors import InputError\n"
        "from omnicalc.interfaces.openmm import OmniCalcPotentialImplFactory\n"
        "try: OmniCalcPotentialImplFactory().createImpl('ubio-s3')\n"
        "except InputError as error: print(error)"
    )
    said = python(code)
    assert said.startswith("the OpenMM interface needs openmm and openmmml, but ") and missing in said
    assert said.endswith("pip install 'omnicalc[openmm]'") and "\n" not in said


def test_every_bundled_name_is_an_entry_point():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    given = project.get("entry-points", {}).get(GROUP)
    if given is None:
        pytest.skip("pyproject.toml has no entry points yet")
    assert set(given) == {entry.name for entry in list_models() if entry.status == "bundled"} | {GENERIC}
    assert set(given.values()) == {"omnicalc.interfaces.openmm:OmniCalcPotentialImplFactory"}
