"""Low-rank updates of frozen matrices (LoRA): W' = W + (alpha / r) B A, for linear layers of any model family.

``add_low_rank`` puts an update on every matrix that a pattern names and leaves only the updates trainable;
``merge_low_rank`` adds them in for good, so that the weights load like any others.
"""

import re
import warnings
from collections.abc import Iterable
from math import isfinite, sqrt

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from omnicalc.errors import InputError


def low_rank(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """W + (alpha / r) B A of W (out, in), A (r, in), B (out, r) (OMNIMOL eq. 13)."""
    return weight + (alpha / a.shape[-2]) * (b @ a)


class LowRank(nn.Module):
    """The update of one matrix, or one for each of ``parts`` equal slices of its rows (q, k and v of one matrix).

    A starts by Kaiming's rule, B at zero: at first nothing changes.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, parts: int = 1):
        super().__init__()
        out, n_in = weight.shape
        self.alpha, self.parts = alpha, parts
        kind = {"dtype": weight.dtype, "device": weight.device}
        self.a = nn.Parameter(torch.empty(parts, rank, n_in, **kind))
        for part in self.a:
            nn.init.kaiming_uniform_(part, a=sqrt(5))
        self.b = nn.Parameter(torch.zeros(parts, out // parts, rank, **kind))

    def forward(self, weight: Tensor) -> Tensor:
        return low_rank(weight.unflatten(0, (self.parts, -1)), self.a, self.b, self.alpha).flatten(0, 1)


def useful_rank(weight: Tensor, parts: int = 1) -> float:
    """d_in d_out / (d_in + d_out): above it an update has more numbers than the matrix it updates."""
    out, n_in = weight.shape[0] // parts, weight.shape[1]
    return out * n_in / (out + n_in)


def add_low_rank(
    model: nn.Module, patterns: Iterable[str], *, rank: int, alpha: float | None = None, thirds: str = "in_proj_weight"
) -> list[str]:
    """Freeze ``model`` and put a trainable update on every matrix whose name matches a pattern (a regular expression
    for the whole name); the names.

    ``alpha`` None: equal to the rank, so the factor is 1. Matrices whose last name is ``thirds`` get three updates.
    Warns, once, where the rank is larger than useful. What else is to be trained: :func:`unfreeze`.

    Raises:
        InputError: a rank below 1, an alpha that is no number, or patterns that name no matrix.
    """
    if type(rank) is not int or rank < 1:
        raise InputError(f"rank {rank!r} given; a whole number of at least 1 is needed")
    if alpha is not None and (type(alpha) not in (int, float) or not isfinite(alpha)):
        raise InputError(f"alpha {alpha!r} given; a number is needed, or None for the rank")
    named = dict(model.named_parameters())
    patterns = list(patterns)
    chosen = [n for n, w in named.items() if w.ndim == 2 and any(re.fullmatch(p, n) for p in patterns)]
    if not chosen:
        raise InputError(f"no matrix of the model is named by {patterns}; its parameters are {sorted(named)[:8]} ...")
    model.requires_grad_(False)
    too_large = []
    for name in chosen:
        owner, _, key = name.rpartition(".")
        parts = 3 if key == thirds else 1
        if rank > useful_rank(named[name], parts):
            too_large.append(f"{name} (useful: up to {int(useful_rank(named[name], parts))})")
        update = LowRank(named[name], rank, rank if alpha is None else alpha, parts)
        parametrize.register_parametrization(model.get_submodule(owner), key, update)
    if too_large:
        warnings.warn(
            f"rank {rank} gives updates with more parameters than the matrices they update: {too_large[0]}"
            + (f" and {len(too_large) - 1} more" if len(too_large) > 1 else ""),
            stacklevel=2,
        )
    return chosen


def unfreeze(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Make the parameters whose names match a pattern trainable again; their names."""
    patterns = list(patterns)
    chosen = [n for n, _ in model.named_parameters() if any(re.fullmatch(p, n) for p in patterns)]
    for name in chosen:
        model.get_parameter(name).requires_grad_(True)
    return chosen


def merge_low_rank(model: nn.Module) -> nn.Module:
    """Add all updates to their matrices, in place; names and shapes are then those of the plain model."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for key in list(module.parametrizations):
            if all(isinstance(update, LowRank) for update in module.parametrizations[key]):
                parametrize.remove_parametrizations(module, key, leave_parametrized=True)
    return model


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """All tensors by the names of the plain model, updates added in; the model stays as it is."""
    plain = {name: t for name, t in model.state_dict().items() if ".parametrizations." not in f".{name}"}
    for owner, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for key in module.parametrizations:
                plain[f"{owner}.{key}" if owner else key] = getattr(module, key).detach().clone()
    return plain


def trainable(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
