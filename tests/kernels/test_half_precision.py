"""16 bits are how the kernels of a step store what linear maps read and write, and no more: no sum is made in them.

What a kernel makes of arrays of 16 bits is, bit for bit, what it makes of the same numbers in float32, rounded once.
"""

from functools import cache

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from omnicalc import kernels  # noqa: E402
from omnicalc.kernels import device, triton_moments, triton_nodes  # noqa: E402
from omnicalc.kernels.device import Moments, triton_type  # noqa: E402
from omnicalc.models.e2former.device import DeviceModel  # noqa: E402
from omnicalc.neighbor_list import NeighborList  # noqa: E402
from tests.contracts.structures import water_and_a_far_atom  # noqa: E402
from tests.kernels.attention_case import DEVICE, changed_copy  # noqa: E402
from tests.kernels.compile_ahead_step import MAPS  # noqa: E402
from tests.kernels.test_device_model import CONFIGS, HALF, potential_of  # noqa: E402

pytestmark = pytest.mark.skipif(DEVICE != "cpu", reason="compilers may order sums in another way for other storage")

N, C, F = 2, 8, 16
FEATURES, HIDDEN, PRODUCTS = (N, 9, C), (2, N, F), (2, N, 3 * F)
NORM = {"x": FEATURES, "gamma": (3, C), "beta": (C,), "scale": (N,), "weight": (9,)}
NODES = {  # grid, and shapes of arrays by name
    "norm": ((N,), NORM | dict.fromkeys(("more", "total", "out"), FEATURES) | {"bias": (C,), "shift": (1, C)}),
    "norm_backward": ((N,), NORM | dict.fromkeys(("grad", "d_x", "rounded"), FEATURES)),
    "products": ((N, 2), {"ab": (N, 9, 4 * F), "bias": (2, F), "out": PRODUCTS}),
    "products_backward": ((N, 2, 1), {"ab": (N, 9, 4 * F), "bias": (2, F), "grad": PRODUCTS}),
    "layernorm_silu": ((2 * N,), {"x": HIDDEN, "gamma": (2, F), "beta": (2, F), "out": HIDDEN}),
    "layernorm_silu_backward": ((2 * N,), {"x": HIDDEN, "gamma": (2, F), "beta": (2, F), "grad": HIDDEN}),
    "gated": ((N,), {"gate": (N, 3, C), "u": (N, 8, C), "out": FEATURES}),
    "gated_backward": ((N, 1), {"gate": (N, 3, C), "u": (N, 8, C), "grad": FEATURES}),
}
CONSTANTS = {"N": N, "C": C, "F": F, "ROWS": 9, "DEGREES": 3, "BR": 16, "BC": C, "BF": F, "MORE": True, "SHIFT": True}
CONSTANTS |= {"ADD": True, "ROUNDED": True, "ACC": triton_type(torch.float32)}


def after_node_kernel(name: str, half: torch.dtype, maps: torch.dtype) -> dict[str, Tensor]:
    """All arrays after a kernel of ``triton_nodes`` has run on numbers that ``half`` can hold, stored as ``maps``."""
    kernel, (grid, shapes) = getattr(kernels.triton_nodes, name), NODES[name]
    generator = torch.Generator().manual_seed(5)
    given = {key: torch.randn(shape, generator=generator).to(half).float() for key, shape in shapes.items()}
    given |= {key: given[key].abs() for key in ("weight",) if key in given}
    given = {key: x.to(maps if key in MAPS[name] else torch.float32) for key, x in given.items()}
    numbers = CONSTANTS | given | {"system": torch.zeros(N, dtype=torch.int64)}
    kernel[grid](**{key: numbers[key] for key in kernel.arg_names})
    return given


@cache
def attention() -> tuple[DeviceModel, Moments]:
    """A network with one block, and its attention on the edges of some water."""
    potential, systems = potential_of(CONFIGS["softmax, both orders"]).float(), water_and_a_far_atom(DEVICE)
    model = DeviceModel(potential.model, [1, 8])
    config = model.config
    kind, rows = (systems.numbers == 8).int(), NeighborList(config.cutoff, 0.3).rows_with_skin(systems)
    near = device.near_edges(
        systems.positions, kind, rows, cutoff=config.cutoff, cap=None, envelope=config.envelope, points=model.points,
        kinds=2, dtype=torch.float32,
    )  # fmt: skip
    heads, d = config.attention_heads, config.query_width
    return model, Moments(near, config.weights, heads, d, model.inverse_width, torch.float32)


def after_attention(half: torch.dtype, maps: torch.dtype) -> dict[str, Tensor]:
    """The same of both ways through the attention of a block: what it finds, and gradients."""
    model, moments = attention()
    near, block, n, c = moments.near, model.blocks[0], len(moments.near.count), model.config.channels
    generator = torch.Generator().manual_seed(6)
    shapes = [(n, moments.d * moments.heads)] * 2 + [(n, 9, c), (n, block.coupling.rows, c)]
    q, k, v, grad = (torch.randn(s, generator=generator).to(half).to(maps) for s in shapes)
    out, softmax = moments.forward(q, k, v, block.gates, block.coupling)
    d_q, d_k = torch.empty_like(q), torch.empty_like(k)
    d_distance, d_unit = torch.zeros_like(near.distance)[None], torch.zeros_like(near.unit)[None]
    kept = out.to(half).to(maps)
    d_v = moments.backward(q, k, v, block.gates, block.coupling, kept, softmax, grad, d_q, d_k, d_distance, d_unit)
    found = {"out": out, "d_q": d_q, "d_k": d_k, "d_v": d_v}
    return found | {"d_distance": d_distance, "d_unit": d_unit, "top": softmax[0], "total": softmax[1]}


def after(kernel: str | None, half: torch.dtype, maps: torch.dtype) -> dict[str, Tensor]:
    """Of the kernel of that name, or (None) of the attention."""
    return after_attention(half, maps) if kernel is None else after_node_kernel(kernel, half, maps)


exact = cache(lambda kernel, half: after(kernel, half, torch.float32))


def differing(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Names of arrays that are not those of float32, rounded."""
    return [key for key, x in stored.items() if not torch.equal(x, wanted[key].to(x.dtype))]


@pytest.mark.parametrize("half", HALF, ids=HALF.values())
@pytest.mark.parametrize("kernel", [*NODES, None])
def test_only_storage_is_of_16_bits(kernel, half):
    assert differing(after(kernel, half, half), exact(kernel, half)) == []


MISTAKES = {  # kernel (None: the attention), what is changed in its module, and an array where it shows
    "products of 16 bits": (
        "products", "t += tl.load(here, ok, 0.0).to(ACC) * tl.load(here + F, ok, 0.0).to(ACC)",
        "t += tl.load(here, ok, 0.0) * tl.load(here + F, ok, 0.0)", "out",
    ),
    "a mean of 16 bits": (
        "layernorm_silu", "value = tl.load(x + i * F + f, f < F, 0.0).to(ACC)",
        "value = tl.load(x + i * F + f, f < F, 0.0)", "out",
    ),
    "a sum over rows in 16 bits": (
        "gated_backward", "d_gate += d[degree * degree + m] * value[degree * degree + m - 1]",
        "d_gate = (d_gate + d[degree * degree + m] * value[degree * degree + m - 1]).to(tl.float16).to(ACC)", "gate",
    ),
    "the norm of rounded features": (
        "norm", "tl.store(total + at, value, ok)",
        "value = value.to(tl.float16).to(ACC)\n        tl.store(total + at, value, ok)", "total",
    ),
    "scores of 16 bits": (
        None, "(tl.load(at + p * H, ok, 0.0).to(ACC),)", "(tl.load(at + p * H, ok, 0.0),)", "top",
    ),
    "sums over edges in 16 bits": (
        None, "out = out + (x[p] + a * y[p],)", "out = out + ((x[p] + a * y[p]).to(tl.float16).to(a.dtype),)", "d_v",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kernel, old, new, array", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_seen(kernel, old, new, array, monkeypatch, tmp_path):
    module = triton_moments if kernel is None else triton_nodes
    wanted = exact(kernel, torch.float16)  # of the module as it is
    name = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(kernels, name, changed_copy(module, tmp_path, old, new))
    assert array in differing(after(kernel, torch.float16, torch.float16), wanted)
