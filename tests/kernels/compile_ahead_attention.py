"""The kernels of the fused attention, to be compiled ahead of time (:mod:`tests.kernels.compile_ahead`).

CONFIG = CAPABILITY:CHANNELS:HEADS:WIDTH:L_MAX:KIND:ZERO:STORAGE[:HEADS_PER_TILE:KERNEL].
"""

from collections.abc import Iterator

import torch

from omnicalc.kernels import triton_attention
from omnicalc.kernels.fused_attention import Form, Tile, sizes, tile
from tests.kernels.compile_ahead import Build, main

KERNELS = {  # every kernel, with and without its tangent form
    "forward": [False],
    "backward_target": [False, True],
    "backward_source": [False, True],
    "tangent_moments": [True],
}
TYPES = {"N": "i32", "K": "i32"} | dict.fromkeys(("source", "count", "pointer", "edge"), "*i64")


def builds(channels, heads, d, l_max, kind, zero, storage, per_tile=None, only=None) -> Iterator[Build]:
    channels, heads, d = int(channels), int(heads), int(d)
    rows = (int(l_max) + 1) ** 2 * channels // heads
    block = tile(heads, d, rows, torch.float32) if per_tile is None else Tile(1, int(per_tile), 1)
    constants = sizes(heads, d, rows, Form(kind, zero=zero == "True"), torch.float32)
    constants |= {"BK": block.edges, "BH": block.heads}
    types = TYPES | dict.fromkeys(("k", "v"), f"*{storage}")
    for name, forms in KERNELS.items() if only is None else [(only, KERNELS[only])]:
        kernel = getattr(triton_attention, name)
        directions = {p.name: None for p in kernel.params if p.name.endswith("_t")}
        for tangent in forms:
            given = constants | {"TANGENT": tangent} | ({} if tangent else directions)
            yield Build(kernel, given, block.warps, types, fusion=False)  # as launched


if __name__ == "__main__":
    main(builds)
