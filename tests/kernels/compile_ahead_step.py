"""The kernels of a whole step, to be compiled ahead of time (:mod:`tests.kernels.compile_ahead`).

CONFIG = CAPABILITY:CHANNELS:HEADS:WIDTH:L_MAX:KIND:ZERO:MAPS, where MAPS is fp32, fp16 or bf16.
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
MAPS = {  # arrays that linear maps read or write, in whose type they are stored
    "attend": ("q", "k", "v", "out"),
    "attend_backward": ("q", "k", "v", "out", "grad", "d_q"),
    "attend_backward_source": ("q", "grad", "d_k", "d_v"),
    "norm": ("more", "out"),
    "norm_backward": ("grad", "rounded"),
    "gated": ("gate", "u", "out"),
    "gated_backward": ("gate", "u", "grad"),
    "layernorm_silu": ("x", "out"),
    "layernorm_silu_backward": ("x", "grad"),
    "products": ("ab", "out"),
    "products_backward": ("ab", "grad"),
}


def builds(channels, heads, d, l_max, kind, zero, maps) -> Iterator[Build]:
    channels, heads, d, l_max, zero = int(channels), int(heads), int(d), int(l_max), zero == "True"
    f, rows, ch = heads * d // 2, (l_max + 1) ** 2, channels // heads
    matrix = coupling_matrix(l_max, False, zero)
    block = min(HEADS, power_of_two(heads))
    wide = block if maps == "fp32" else min(WIDE * HEADS, power_of_two(heads))
    moments = {
        "H": heads, "D": d, "P": rows * ch, "CH": ch, "OUT": len(matrix), "T": tuple(matrix.flatten().tolist()),
        "KIND": KINDS[kind], "FIRST": True, "ZERO": zero, "ACC": tl.float32, "INVERSE": 227.5,
    }  # fmt: skip

    def with_maps(kernel, constants: dict, warps: int) -> Build:
        return Build(kernel, constants, warps, TYPES | dict.fromkeys(MAPS[kernel.fn.__name__], f"*{maps}"))

    yield with_maps(triton_moments.attend, moments | {"BH": wide}, 1)
    yield with_maps(triton_moments.attend_backward, moments | {"BH": block}, 1)
    yield with_maps(triton_moments.attend_backward_source, moments | {"BH": wide}, 1)
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
    features |= {"SHIFT": True, "ADD": True, "DEGREES": l_max + 1, "F": f, "BF": f, "ACC": tl.float32}
    features |= {"ROUNDED": maps != "fp32"}
    warps = min(8, max(1, channels * features["BR"] // 512))
    for kernel in (triton_nodes.norm, triton_nodes.norm_backward, triton_nodes.gated):
        yield with_maps(kernel, features, warps)
    yield Build(triton_nodes.norm, features, warps, TYPES | {"more": f"*{maps}"})  # the last one
    yield Build(triton_nodes.norm_backward, features | {"ADD": False}, warps, TYPES | {"rounded": f"*{maps}"})
    for kernel in (triton_nodes.layernorm_silu, triton_nodes.layernorm_silu_backward, triton_nodes.products):
        yield with_maps(kernel, features, min(8, max(1, f // 128)))
    part = min(256, f)
    yield with_maps(triton_nodes.products_backward, features | {"BF": part}, max(1, part // 64))
    part = min(128, channels)
    yield with_maps(triton_nodes.gated_backward, features | {"BC": part}, max(1, part // 64))


if __name__ == "__main__":
    main(builds)
