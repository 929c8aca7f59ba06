"""The scripts in analysis/kernels: what they print, and that the passes they time run."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("triton")

SCRIPTS = Path(__file__).parents[2] / "analysis" / "kernels"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"analysis_kernels_{name}", SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_three_routes_with_their_errors(script):
    arguments = ["--atoms", "20", "--neighbors", "5", "--channels", "4", "--heads", "2", "--rounds", "1"]
    done = CliRunner().invoke(script("eaas").main, arguments)
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: [float(x) for x in line.split()[1:]] for line in done.output.splitlines()[2:]}
    assert set(rows) == {"edge", "eaas", "dense"}
    for forward, both, fine, rough, gradient in rows.values():
        assert forward > 0 and both > 0
        assert fine < 1e-12
        assert 0 < rough < 1e-4 and 0 < gradient < 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(script):
    done = CliRunner().invoke(script("fused_attention").main)
    assert done.exit_code == 1
    assert "no CUDA device was found" in done.output


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a pass alone works on what memory happens to hold
def test_every_pass_runs_and_has_its_bytes(script):
    module = script("fused_attention")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    problem = module.Problem.random("small", 3, 2, None, device)
    launches, traffic = problem.launches(), problem.traffic()
    assert launches.keys() == traffic.keys()
    for name, launch in launches.items():
        launch()
        gathered, once = traffic[name]
        assert gathered > 0 and once > 0
    assert max(module.errors(problem)) < 1e-5
