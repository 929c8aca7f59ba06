"""Where the system gives no more threads or memory, native code goes on with what there is, or says so."""

import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")
STACK, ROOM = 4 << 30, 1 << 30  # of a thread, and of memory: none fits
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no limit on addresses here")

BEGIN = """
import os, resource
import numpy as np
import torch

def limit(room):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, 2 * (pages * resource.getpagesize() + room,))
"""
POTENTIAL = f"""
from ase.build import molecule
from omnicalc import OmniCalc
torch.set_num_threads(1)
atoms = molecule("H2O")
atoms.calc = OmniCalc("ubio-s3", device="cpu", kernel="native")
forces = atoms.get_forces()
limit({ROOM})
torch.set_num_threads(3)
atoms.calc.reset()
assert (atoms.get_forces() == forces).all()
"""
COUNTS = f"""
from omnicalc.analysis.pair_counts import PairCounter
atoms, box = np.arange(600), np.array([20, 20, 20, 90, 90, 90.0])
x = np.random.default_rng(0).uniform(0, 20, (600, 3)).astype(np.float32)
counter, found = PairCounter(atoms, atoms, 0.02, 300), []
for threads in "13":
    os.environ["OMP_NUM_THREADS"] = threads
    found.append(counter(x, box))
    limit({ROOM})
assert (found[0] == found[1]).all()
"""
MEMORY = """
from omnicalc.kernels.edge_lists import FlatEdges
from omnicalc.kernels.fused_attention import Form, fused_attention
n, k, heads = 16, 4000, 64
torch.set_num_threads(2)
q, v, gate = torch.ones(n, heads, 1), torch.ones(n, 4, heads), torch.ones(n * k, heads)
edges = FlatEdges.build(torch.arange(k).expand(n, k) % n, torch.ones(n, k, dtype=torch.bool)).alone
limit(40 << 20)
try:
    fused_attention(q, q, v, gate, gate, gate[:, 0], gate[:, :3], edges, Form())
except MemoryError:
    os._exit(0)
os._exit(1)
"""


@pytest.mark.parametrize("work", [POTENTIAL, COUNTS, MEMORY], ids=["threads of the potential", "counts", "memory"])
def test_a_limit(work):
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    if most != resource.RLIM_INFINITY and most < STACK:
        pytest.skip("the system allows no such stacks")
    stack = STACK if work is not MEMORY else 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + work],
        cwd=Path(__file__).resolve().parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (stack, most)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
