"""Every kernel compiles for sm_80 and sm_90 without spilling registers, at the sizes that matter. Needs no GPU."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from omnicalc.kernels import triton_attention  # noqa: E402

CONFIGS = {
    "small": "32:8:4:2:softplus:False:fp32",  # the bundled weights ubio-s3:small
    "fast": "32:8:4:1:softplus:True:fp32",  # the recipe of the fast weights
    "24m": "256:128:8:2:softmax:False:fp32",  # the published configuration of 24 million parameters
    "24m, keys and values in half precision": "256:128:8:2:softmax:False:bf16",
}
CAPABILITIES = (80, 90)
TOO_LARGE = f"90:{CONFIGS['24m']}:128:forward"


def built(module: str, configs: list[str], cache: Path) -> list[dict]:
    """Registers and spills of each config's kernels, from a process apart: in this one they are interpreted."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-m", f"tests.kernels.{module}", *configs]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    configs = [f"{capability}:{config}" for capability in CAPABILITIES for config in CONFIGS.values()]
    kernels = built("compile_ahead_attention", [*configs, TOO_LARGE], tmp_path_factory.mktemp("cache"))
    return {config: [k for k in kernels if k["config"] == config] for config in (*configs, TOO_LARGE)}


def public_kernels() -> set[str]:
    """Functions with a decorator and without a leading underscore."""
    body = ast.parse(Path(triton_attention.__file__).read_text()).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if f.decorator_list and not f.name.startswith("_")}


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_kernel_spills(found, capability, config):
    kernels = found[f"{capability}:{config}"]
    assert {kernel["kernel"] for kernel in kernels} == public_kernels()
    assert {kernel["kernel"] for kernel in kernels if kernel["tangent"]} == public_kernels() - {"forward"}
    for kernel in kernels:
        assert kernel["stored"] == kernel["loaded"] == 0, kernel
        assert 16 < kernel["registers"] <= 255, kernel


def test_a_tile_too_large_is_seen_to_spill(found):
    (kernel,) = found[TOO_LARGE]
    assert kernel["stored"] > 0 and kernel["loaded"] > 0


STEP = {  # of a whole step
    "small": "90:32:8:4:2:softplus:False:fp32",
    "24m, sm_80": "80:256:128:8:2:softmax:False:fp32",
    "24m": "90:256:128:8:2:softmax:False:fp32",
    "small, float16": "90:32:8:4:2:softplus:False:fp16",
    "24m, float16, sm_80": "80:256:128:8:2:softmax:False:fp16",
    "24m, float16": "90:256:128:8:2:softmax:False:fp16",
    "24m, bfloat16, sm_80": "80:256:128:8:2:softmax:False:bf16",
    "24m, bfloat16": "90:256:128:8:2:softmax:False:bf16",
}


@pytest.fixture(scope="module")
def step(tmp_path_factory) -> list[dict]:
    return built("compile_ahead_step", list(STEP.values()), tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("config", STEP.values(), ids=STEP)
def test_no_kernel_of_a_step_spills(step, config):
    kernels = [k for k in step if k["config"] == config]
    assert len({k["kernel"] for k in kernels}) == 16
    for kernel in kernels:
        assert kernel["stored"] == kernel["loaded"] == 0, kernel
        assert 8 < kernel["registers"] <= 255, kernel
