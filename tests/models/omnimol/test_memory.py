"""The memory forecast against what a process really took."""

import subprocess
import sys

import pytest

_MEASURE = """
import resource, sys, torch
from omnicalc.models import build_model
from omnicalc.models.omnimol.memory import forecast
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems
from tests.contracts.structures import waters

size, n, forces = sys.argv[1], int(sys.argv[2]), sys.argv[3]
model = build_model("omnimol", {"heads": ["a"], "size": size, "forces": forces}).eval().requires_grad_(False)
potential = Potential(model, [Head("a", dict.fromkeys((1, 8), 0.0))])

def run(atoms):
    systems = Systems.from_atoms(atoms)
    potential(systems, neighbors(systems, 1.0), head="a")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = run(waters(2, None))
print(run(waters(n // 3, None)) - before, forecast(model.config, 1, n, 4, forces == "gradient"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, n, forces", [("tiny", 300, "gradient"), ("tiny", 900, "direct"), ("S", 300, "gradient")]
)
def test_forecast(size, n, forces):
    words = [sys.executable, "-c", _MEASURE, size, str(n), forces]
    taken, foreseen = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert 0.7 * taken < foreseen < 2.0 * taken
