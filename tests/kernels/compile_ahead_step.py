"""The kernels of a whole step, to be compiled ahead of time (:mod:`tests.kernels.compile_ahead`).

CONFIG = CAPABILITY:CHANNELS:HEADS:WIDTH:L_MAX:KIND:ZERO:STORAGE.
"""

from collections.abc import Iterator

import triton.language as tl

from omnicalc.kernels import triton_edges, triton_moments, triton_nodes
from omnicalc.kernels.blocks import power_of_two
from omnicalc.kernels.device import CHANNELS, HEADS, WIDE
from omnicalc.kernels.native.attention import KINDS
from omnicalc.models.e2former.angular import coupling_matrix
from tests.kernels.compile_ahead import Build, main

INT32 = ("kind", "skin_source", "source", "place", "count", "row", "leaving", "leaving_count", "reverse", "arg")
INT32 = (*INT32, "arg_out")
FLOAT64 = ("skin_offset", "forces", "virial", "squares")
TYPES = dict.fromkeys(("slots", "N", "n_kinds", "points"), "i32") | {"system": "*i64"}
TYPES |= dict.fromkeys(INT32, "*i32") | dict.fromkeys(FLOAT64, "*fp64")


def builds(channels, heads, d, l_max, kind, zero, storage) -> Iterator[Build]:
    channels, heads, d, l_max, zero = int(channels), int(heads), int(d), int(l_max), zero == "True"
    f, rows, ch = heads * d // 2, (l_max + 1) ** 2, channels // heads
    matrix = coupling_matrix(l_max, False, zero)
    block = min(HEADS, power_of_two(heads))
    wide = block if storage == "fp32" else min(WIDE * HEADS, power_of_two(heads))
    moments = {
        "H": heads, "D": d, "P": rows * ch, "CH": ch, "OUT": len(matrix), "T": tuple(matrix.flatten().tolist()),
        "KIND": KINDS[kind], "FIRST": True, "ZERO": zero, "ACC": tl.float32, "INVERSE": 227.5,
    }  # fmt: skip
    kept = {name: f"*{storage}" for name in ("k", "v")}
    yield Build(triton_moments.attend, moments | {"BH": wide}, 1, TYPES | kept)
    yield Build(triton_moments.attend_backward, moments | {"BH": block}, 1, TYPES | kept | {"grad": f"*{storage}"})
    yield Build(triton_moments.attend_backward_source, moments | {"BH": wide}, 1, TYPES | {"grad": f"*{storage}"})
    edges = {"CUTOFF": 4.5, "SPACING": 0.0022, "ENVELOPE": 7, "ACC": tl.float32}
    for cap, slots in ((0, 128), (32, 128), (32, 512)):
        yield Build(triton_edges.near_edges, edges | {"CAP": cap, "BS": slots}, 4, TYPES | {"x": "*fp64"})
    yield Build(triton_edges.leaving_edges, {"BS": 128}, 1, TYPES)
    yield Build(triton_edges.edge_forces, {"BS": 128, "PARTS": -(-heads // block)}, 2, TYPES)
    part = min(CHANNELS, channels)
    embed = {"C": channels, "TWO": l_max == 2, "ACC": tl.float32, "BC": part, "INVERSE": 227.5}
    yield Build(triton_edges.embed, embed, max(1, part // 32), TYPES)
    yield Build(triton_edges.embed_backward, embed, max(1, part // 128), TYPES)
    features = {"C": channels, "ROWS": rows, "BR": power_of_two(rows), "BC": channels, "MORE": True}
    features |= {"SHIFT": True, "ADD": True, "DEGREES": l_max + 1, "F": f, "BF": f}
    warps = min(8, max(1, channels * features["BR"] // 512))
    for kernel in (triton_nodes.norm, triton_nodes.norm_backward, triton_nodes.gated):
        yield Build(kernel, features, warps, TYPES)
    for kernel in (triton_nodes.layernorm_silu, triton_nodes.layernorm_silu_backward, triton_nodes.products):
        yield Build(kernel, features, min(8, max(1, f // 128)), TYPES)
    part = min(256, f)
    yield Build(triton_nodes.products_backward, features | {"BF": part}, max(1, part // 64), TYPES)
    part = min(128, channels)
    yield Build(triton_nodes.gated_backward, features | {"BC": part}, max(1, part // 64), TYPES)


if __name__ == "__main__":
    main(builds)
