"""What an evaluation will need: all-to-all attention keeps every layer's N x N logits, so size has a hard end."""

import torch

from omnicalc.errors import InputError
from omnicalc.models.free_memory import free_memory
from omnicalc.models.omnimol.config import OmnimolConfig

_COPIES = 3.0  # arrays of the size of the logits that a layer keeps for its gradient: logits, weights, their slopes
_HIDDEN = 8.0  # arrays of a pair's hidden width alive in one chunk
_SHARE = 0.9  # of the free memory that may be used


def forecast(config: OmnimolConfig, n_systems: int, width: int, itemsize: int, gradient: bool) -> int:
    """Bytes for a batch of ``n_systems`` padded to ``width`` atoms; ``gradient``: forces by differentiation."""
    entries = width + config.tokens
    logits = n_systems * config.attention_heads * entries**2
    layers = config.layers + (config.head_layers if gradient else 1)
    kept = logits * _COPIES * (layers if gradient else 1)
    pairs = n_systems * width**2
    chunk = min(pairs, max(config.pair_chunk, n_systems * width))
    kept += chunk * _HIDDEN * 2 * config.width + pairs * config.n_biases
    return int(itemsize * kept)


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
