"""Compiles the fused attention for GPUs that need not be there, and reads what ptxas says about each kernel.

``python compile_ahead.py CONFIG ...`` prints one JSON line per kernel, with
CONFIG = CAPABILITY:CHANNELS:HEADS:WIDTH:L_MAX:KIND:ZERO:STORAGE[:HEADS_PER_TILE:KERNEL].
To be run apart from tests in the interpreter, where kernels cannot be compiled.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from omnicalc.kernels import triton_attention
from omnicalc.kernels.fused_attention import Form, Tile, sizes, tile

KERNELS = {  # every kernel, with and without its tangent form
    "forward": [False],
    "backward_target": [False, True],
    "backward_source": [False, True],
    "tangent_moments": [True],
}
WHOLE = {"N": "i32", "K": "i32"} | dict.fromkeys(("source", "count", "pointer", "edge"), "*i64")


def compiled(name: str, capability: int, constants: dict, warps: int, tangent: bool, storage: str):
    """The kernel for float32, keys and values in ``storage``, specialised as by tensors that are 16-byte aligned."""
    kernel = getattr(triton_attention, name)
    signature, values, aligned = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        key = parameter.name
        if parameter.is_constexpr:
            signature[key], values[position,] = "constexpr", constants[key]
        elif key.endswith("_t") and not tangent:
            signature[key], values[position,] = "constexpr", None
        else:
            signature[key] = f"*{storage}" if key in ("k", "v") else WHOLE.get(key, "*fp32")
            if signature[key].startswith("*"):
                aligned[position,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, aligned)
    options = {"num_warps": warps, "enable_fp_fusion": False}  # as launched
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(ptx: str) -> dict[str, int]:
    """Registers per thread and bytes spilled, from the verbose assembler that Triton brings."""
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    target = re.search(r"\.target (\w+)", ptx)[1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [ptxas, "-v", f"--gpu-name={target}", file, "-o", file.with_suffix(".cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = {
        "registers": r"Used (\d+) registers",
        "stored": r"(\d+) bytes spill stores",
        "loaded": r"(\d+) bytes spill loads",
    }
    return {key: int(re.search(pattern, said)[1]) for key, pattern in found.items()}


def compile_config(
    config: str, capability, channels, heads, d, l_max, kind, zero, storage, per_tile=None, only=None
) -> None:
    channels, heads, d = int(channels), int(heads), int(d)
    rows = (int(l_max) + 1) ** 2 * channels // heads
    block = tile(heads, d, rows, torch.float32) if per_tile is None else Tile(1, int(per_tile), 1)
    constants = sizes(heads, d, rows, Form(kind, zero=zero == "True"), torch.float32)
    constants |= {"BK": block.edges, "BH": block.heads}
    chosen = KERNELS if only is None else {only: KERNELS[only]}
    for name, forms in chosen.items():
        for tangent in forms:
            built = compiled(name, int(capability), constants | {"TANGENT": tangent}, block.warps, tangent, storage)
            print(json.dumps({"config": config, "kernel": name, "tangent": tangent, **resources(built.asm["ptx"])}))


if __name__ == "__main__":
    for config in sys.argv[1:]:
        compile_config(config, *config.split(":"))
