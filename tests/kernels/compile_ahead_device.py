"""Compiles the kernels of a whole step for GPUs that need not be there, and reads what ptxas says about them.

``python -m tests.kernels.compile_ahead_device CONFIG ...`` prints one JSON line per kernel, CONFIG =
CAPABILITY:CHANNELS:HEADS:WIDTH:L_MAX:KIND:ZERO:STORAGE.
"""

import json
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from omnicalc.kernels import triton_edges, triton_moments, triton_nodes
from omnicalc.kernels.device import CHANNELS, HEADS, WIDE
from omnicalc.kernels.native.attention import KINDS
from omnicalc.models.e2former.angular import coupling_matrix
from tests.kernels.compile_ahead import resources

WHOLE = ("slots", "N", "n_kinds", "points")
INT32 = ("kind", "skin_source", "source", "place", "count", "row", "leaving", "leaving_count", "reverse", "arg")
INT32 = (*INT32, "arg_out")
FLOAT64 = ("skin_offset", "forces", "virial", "squares")


def compiled(kernel, capability: int, constants: dict, warps: int, stored: dict):
    """``stored``: types of the arrays that are not float32."""
    signature, values, aligned = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        name = parameter.name
        if parameter.is_constexpr:
            signature[name], values[position,] = "constexpr", constants[name]
            continue
        types = {"system": "*i64"} | dict.fromkeys(INT32, "*i32") | dict.fromkeys(FLOAT64, "*fp64") | stored
        signature[name] = "i32" if name in WHOLE else types.get(name, "*fp32")
        if signature[name].startswith("*"):
            aligned[position,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def kernels(channels, heads, d, l_max, kind, zero, storage):
    """Every kernel with its constants, warps and types."""
    f, rows, ch = heads * d // 2, (l_max + 1) ** 2, channels // heads
    matrix = coupling_matrix(l_max, False, zero)
    block = min(HEADS, triton.next_power_of_2(heads))
    wide = block if storage == "fp32" else min(WIDE * HEADS, triton.next_power_of_2(heads))
    moments = {
        "H": heads, "D": d, "P": rows * ch, "CH": ch, "OUT": len(matrix), "T": tuple(matrix.flatten().tolist()),
        "KIND": KINDS[kind], "FIRST": True, "ZERO": zero, "ACC": tl.float32, "INVERSE": 227.5,
    }  # fmt: skip
    kept = {name: f"*{storage}" for name in ("k", "v")}
    yield triton_moments.attend, moments | {"BH": wide}, 1, kept
    yield triton_moments.attend_backward, moments | {"BH": block}, 1, kept | {"grad": f"*{storage}"}
    yield triton_moments.attend_backward_source, moments | {"BH": wide}, 1, {"grad": f"*{storage}"}
    edges = {"CUTOFF": 4.5, "SPACING": 0.0022, "ENVELOPE": 7, "ACC": tl.float32}
    for cap, block in ((0, 128), (32, 128), (32, 512)):
        yield triton_edges.near_edges, edges | {"CAP": cap, "BS": block}, 4, {"x": "*fp64"}
    yield triton_edges.leaving_edges, {"BS": 128}, 1, {}
    yield triton_edges.edge_forces, {"BS": 128, "PARTS": -(-heads // block)}, 2, {}
    part = min(CHANNELS, channels)
    embed = {"C": channels, "TWO": l_max == 2, "ACC": tl.float32, "BC": part, "INVERSE": 227.5}
    yield triton_edges.embed, embed, max(1, part // 32), {}
    yield triton_edges.embed_backward, embed, max(1, part // 128), {}
    features = {"C": channels, "ROWS": rows, "BR": triton.next_power_of_2(rows), "BC": channels, "MORE": True}
    features |= {"SHIFT": True, "ADD": True, "DEGREES": l_max + 1, "F": f, "BF": f}
    warps = min(8, max(1, channels * features["BR"] // 512))
    for kernel in (triton_nodes.norm, triton_nodes.norm_backward, triton_nodes.gated):
        yield kernel, features, warps, {}
    for kernel in (triton_nodes.layernorm_silu, triton_nodes.layernorm_silu_backward, triton_nodes.products):
        yield kernel, features, min(8, max(1, f // 128)), {}
    yield triton_nodes.products_backward, features | {"BF": min(256, f)}, max(1, min(256, f) // 64), {}
    yield triton_nodes.gated_backward, features | {"BC": min(128, channels)}, max(1, min(128, channels) // 64), {}


if __name__ == "__main__":
    for config in sys.argv[1:]:
        capability, channels, heads, d, l_max, kind, zero, storage = config.split(":")
        every = kernels(int(channels), int(heads), int(d), int(l_max), kind, zero == "True", storage)
        for kernel, constants, warps, stored in every:
            built = compiled(kernel, int(capability), constants, warps, stored)
            print(json.dumps({"config": config, "kernel": kernel.fn.__name__, **resources(built.asm["ptx"])}))
