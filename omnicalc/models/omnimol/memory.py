"""What an evaluation will need: all-to-all attention keeps every layer's N x N logits, so size has a hard end."""

import torch

from omnicalc.errors import InputError
from omnicalc.models.free_memory import free_memory
from omnicalc.models.omnimol.config import OmnimolConfig

_COPIES = 4.0  # arrays of the size of the logits that a layer keeps for its gradient: logits, weights, their slopes
_HIDDEN = 8.0  # arrays of a pair's hidden layer that are alive in one chunk
_LOCAL = 14.0  # arrays of a neighbour's features that a layer of the local block keeps
_DENSITY = 0.1  # atoms per Å^3 of dense matter: how many neighbours there will be
_SHARE = 0.9  # of the free memory that may be used


def forecast(config: OmnimolConfig, n_systems: int, width: int, itemsize: int, gradient: bool) -> int:
    """Bytes for a batch of ``n_systems`` padded to ``width`` atoms; ``gradient``: forces by differentiation.

    Three terms: all-to-all attention of every layer, and one chunk each of pair features and of the local block, which
    are recomputed in the backward pass. Measured against it: tests/models/omnimol/test_memory.py.
    """
    layers = config.layers + config.head_layers if gradient else 1
    logits = n_systems * config.attention_heads * (width + config.tokens) ** 2
    pairs = n_systems * width**2
    chunk = min(pairs, max(config.pair_chunk, n_systems * width))
    k = _neighbors(config, width)
    centres = min(n_systems * width, config.centre_chunk(k))
    token = 2 * _HIDDEN * config.width + config.local_layers * _LOCAL * config.width
    local = centres * k * (token + _COPIES * config.local_layers * config.attention_heads * k)
    chunks = (2 if gradient else 1) * (_HIDDEN * 2 * config.width * chunk + local)
    total = layers * _COPIES * logits + config.n_biases * pairs + chunks
    return int(itemsize * total)


def _neighbors(config: OmnimolConfig, width: int) -> int:
    most = config.k if config.neighbors == "nearest" else int(_DENSITY * 4.19 * config.cutoff**3)
    return max(1, min(most, width - 1))


def check_memory(config: OmnimolConfig, n_systems: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a batch whose attention would not fit into the memory that is free.

    Raises:
        InputError: with the forecast, what is free, and about how many atoms one molecule may have.
    """
    gradient = config.forces == "gradient"
    itemsize = torch.finfo(dtype).bits // 8
    needed = forecast(config, n_systems, width, itemsize, gradient)
    if needed < 2**28:  # never in the way of small molecules
        return
    free = _SHARE * free_memory(device)
    if needed <= free:
        return
    fits = width
    while fits > 1 and forecast(config, 1, fits, itemsize, gradient) > free:
        fits = int(0.95 * fits)
    what = f"a molecule of {width} atoms" if n_systems == 1 else f"{n_systems} molecules of up to {width} atoms"
    raise InputError(
        f"{what} would need about {needed / 2**30:.1f} GiB for attention between all atoms, and {free / 2**30:.1f} "
        f"GiB may be used; about {fits} atoms in one molecule fit. Take a smaller molecule or batch, float32, or a "
        "model with a cutoff (omnicalc models)"
    )
