"""Compiles Triton kernels for GPUs that need not be there, and reads what ptxas says about each.

The modules that list kernels, one build after another for a configuration, end in :func:`main`:
``python -m tests.kernels.compile_ahead_step CONFIG ...``. To be run apart from tests in the interpreter, where kernels
cannot be compiled.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@dataclass(frozen=True)
class Build:
    """One kernel as it is launched."""

    kernel: object
    constants: dict  # those it does not have are ignored; an array that is not given is a constant, too: None
    warps: int
    types: dict[str, str]  # of arguments that are no arrays of float32
    fusion: bool = True  # of products into sums

    def compiled(self, capability: int):
        """Specialised as by tensors that are 16-byte aligned."""
        signature, values, aligned = {}, {}, {}
        for position, parameter in enumerate(self.kernel.params):
            name = parameter.name
            if parameter.is_constexpr or name in self.constants:
                signature[name], values[position,] = "constexpr", self.constants[name]
                continue
            signature[name] = self.types.get(name, "*fp32")
            if signature[name].startswith("*"):
                aligned[position,] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, values, aligned)
        options = {"num_warps": self.warps, "enable_fp_fusion": self.fusion}
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


def main(builds: Callable[..., Iterable[Build]]) -> None:
    """One JSON line per kernel of each CONFIG = CAPABILITY:SIZE:... of the command line; ``builds`` takes the sizes."""
    for config in sys.argv[1:]:
        capability, *sizes = config.split(":")
        for build in builds(*sizes):
            found = resources(build.compiled(int(capability)).asm["ptx"])
            name, tangent = build.kernel.fn.__name__, build.constants.get("TANGENT", False)
            print(json.dumps({"config": config, "kernel": name, "tangent": tangent, **found}))
