"""Published tensors: whether a file holds plain numbers, and strict comparison with those of a network of ours."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from omnicalc.errors import WeightsError

UNEXPECTED = "unexpected {ours} {shape}"
MISSHAPEN = "{ours} has shape {shape}, the config asks for {wanted}"


def checked_tensors(tensors: Mapping, key: str, path: Path) -> dict[str, Tensor]:
    """``tensors``, found under ``key`` in a file, if they are tensors of finite numbers.

    Raises:
        WeightsError: entries that are no tensors (all of them named), tensors that are not dense, not finite, or none.
    """
    others = [str(name) for name, t in tensors.items() if not isinstance(t, Tensor) or not isinstance(name, str)]
    if others or not tensors:
        raise WeightsError(f"{path}: '{key}' has entries that are no tensors: {', '.join(others) or 'none at all'}")
    odd = [name for name, t in tensors.items() if t.layout != torch.strided or t.is_meta or _quantised(t)]
    if odd:
        raise WeightsError(
            f"{path}: tensors that are sparse, quantised or without values: {', '.join(sorted(odd))}; dense tensors "
            "are needed (tensor.to_dense() or tensor.dequantize() before torch.save)"
        )
    broken = [name for name, t in tensors.items() if not (t.float() if t.is_floating_point() else t).isfinite().all()]
    if broken:
        raise WeightsError(f"{path}: tensors with, in float32, values that are not finite: {', '.join(sorted(broken))}")
    return dict(tensors)


def _quantised(t: Tensor) -> bool:
    return t.is_quantized or (t.is_floating_point() and t.element_size() < 2)


def renamed(key: str, table: Iterable[tuple[str, str]]) -> str:
    """A published name with all (pattern, replacement) of ``table`` applied, in their order."""
    for pattern, replacement in table:
        key = re.sub(pattern, replacement, key)
    return key


def misfits(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    published: Mapping[str, str] | None = None,
    *,
    unexpected: str = UNEXPECTED,
    misshapen: str = MISSHAPEN,
) -> list[str]:
    """What keeps ``state`` from being loaded into a network whose tensors are ``wanted``, both by our names.

    ``published``: our name -> the published one, which the templates of the lines may show as ``{theirs}``.
    """
    others = [
        f"{key} is of type {type(t).__name__}, no tensor" for key, t in state.items() if not isinstance(t, Tensor)
    ]
    if others:
        return others
    ours, needed = state.keys(), wanted.keys()
    mistaken = [(unexpected, k) for k in sorted(ours - needed)]
    mistaken += [(misshapen, k) for k in sorted(ours & needed) if wanted[k].shape != state[k].shape]
    lines = [f"missing {k} {tuple(wanted[k].shape)}" for k in sorted(needed - ours)]
    lines += [
        f"{k} holds {str(state[k].dtype).removeprefix('torch.')}, floating-point numbers are needed"
        for k in sorted(ours & needed)
        if wanted[k].is_floating_point() and not state[k].is_floating_point()
    ]
    for template, key in mistaken:
        lines.append(
            template.format(
                ours=key,
                theirs=published[key] if published else key,
                shape=tuple(state[key].shape),
                wanted=tuple(wanted[key].shape) if key in needed else None,
            )
        )
    return lines


def refuse(problems: list[str]) -> None:
    """Raise :class:`WeightsError` that names all of ``problems``, unless there are none."""
    if problems:
        raise WeightsError("published tensors do not fit the config; nothing was loaded:\n  " + "\n  ".join(problems))
