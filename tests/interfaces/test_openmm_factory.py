"""The entry point is light: OpenMM-ML loads it in every program that imports OpenMM-ML at all."""

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from omnicalc.interfaces.openmm import GENERIC
from omnicalc.registry import list_models

GROUP = "openmmml.potentials"
FACTORY = "omnicalc.interfaces.openmm:OmniCalcPotentialImplFactory"
HEAVY = "{'torch', 'numpy', 'ase', 'openmm', 'openmmml', 'omnicalc.registry'}"


def python(code: str, **environment: str) -> str:
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_module_loads_nothing():
    code = "import sys, omnicalc.interfaces.openmm as m; m.OmniCalcPotentialImplFactory()"
    assert python(f"{code}; print({HEAVY} & set(sys.modules))") == "set()"


@pytest.mark.skipif(find_spec("openmmml") is None, reason="openmmml is not installed")
@pytest.mark.parametrize("first", ["openmmml", "omnicalc.interfaces.openmm", "omnicalc.interfaces.openmm_force"])
def test_as_an_entry_point(tmp_path, first):
    """OpenMM-ML finds it, whichever of the two is imported first, and loads no torch because of it."""
    info = tmp_path / "plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nours = {FACTORY}\n")
    code = (
        f"import sys, {first}, openmmml\n"
        "print(sorted({'torch', 'ase'} & set(sys.modules)))\n"
        "print(type(openmmml.MLPotential._implFactories['ours']).__name__)"
    )
    found = python(code, PYTHONPATH=str(tmp_path)).splitlines()
    assert found[1] == "OmniCalcPotentialImplFactory"
    assert found[0] == ("['ase', 'torch']" if first.endswith("force") else "[]")


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
    assert set(given.values()) == {FACTORY}
