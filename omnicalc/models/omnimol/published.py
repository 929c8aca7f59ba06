"""OmniLearned (PET v2) tensors: a whole published network, strictly, or as the start of an OMNIMOL network.

A checkpoint file of the release is a pickled dict; its parts ``body``, ``classifier_head``, ``generator_head`` (or the
averaged ``ema_body``, ``ema_generator``) are state dicts without a prefix.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from omnicalc.errors import WeightsError
from omnicalc.models.omnimol.pet import PET, PETConfig
from omnicalc.models.published_tensors import checked_tensors, misfits, refuse

_PARTS = {"body": "body", "classifier_head": "classifier", "generator_head": "generator"}
_AVERAGED = {"body": "ema_body", "generator_head": "ema_generator"}
_ADDRESS = "https://portal.nersc.gov/cfs/m4567/checkpoints/best_model_pretrain_{s,m,l}.pt"


def from_published(config: dict, tensors: Mapping[str, Tensor]) -> PET:
    """The network of a published checkpoint, in float64 until cast.

    ``config``: the release's keyword arguments, bare or under ``model_kwargs``; ``tensors``: its state dict with the
    prefixes ``body.``, ``classifier.``, ``generator.``.

    Raises:
        WeightsError: unsupported setting, or missing, unexpected and mis-shaped tensors (all of them named).
    """
    model = PET(PETConfig.from_dict(dict(config.get("model_kwargs", config)))).double()
    refuse(misfits(tensors, model.state_dict()))
    model.load_state_dict({k: v.double() for k, v in tensors.items()}, strict=True)
    return model


def read_checkpoint(file: Path | str, *, averaged: bool = True) -> dict[str, Tensor]:
    """The tensors of a released ``.pt`` or ``.safetensors`` file by their prefixed names (no pickled code is run).

    ``averaged``: the exponential averages of body and generator, where the file has them.

    Raises:
        WeightsError: no such file, or one that holds no PET network, or other than tensors of finite numbers.
    """
    file = Path(file)
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; the release has {_ADDRESS}")
    if file.suffix == ".safetensors":
        return checked_tensors(_safetensors(file), file.name, file)
    try:
        parts = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged or foreign files fails in many ways
        raise WeightsError(f"{file} cannot be read as a checkpoint: {_reason(error)}") from None
    if not isinstance(parts, dict) or "body" not in parts:
        raise WeightsError(f"{file} holds no part 'body'; it is no OmniLearned checkpoint (those are at {_ADDRESS})")
    tensors = {}
    for part, prefix in _PARTS.items():
        names = (_AVERAGED.get(part), part) if averaged else (part,)
        chosen = next((name for name in names if parts.get(name) not in (None, {})), None)
        if chosen is None:
            continue
        if not isinstance(parts[chosen], dict):
            kind = type(parts[chosen]).__name__
            raise WeightsError(f"{file}: '{chosen}' is of type {kind}; a state dict of tensors is needed ({_ADDRESS})")
        for key, tensor in checked_tensors(parts[chosen], chosen, file).items():
            tensors[f"{prefix}.{key.removeprefix('module.')}"] = tensor
    return tensors


def _reason(error: Exception) -> str:
    """What torch's reader says, without its advice to run what is in the file."""
    more = re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", str(error))
    if more:
        return f"it holds more than tensors and plain values ({more[1]}), and loading that could run code"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise WeightsError(f"{file} cannot be read as a safetensors file: {error}") from None


@dataclass(frozen=True)
class Transfer:
    """What :func:`transfer` did, by name."""

    matched: tuple[str, ...]  # copied
    skipped: tuple[str, ...]  # of the checkpoint, with the reason
    fresh: tuple[str, ...]  # of the model, left as they were

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} tensors copied, {len(self.skipped)} skipped, {len(self.fresh)} left fresh"]
        lines += [f"  copied   {name}" for name in self.matched]
        lines += [f"  skipped  {what}" for what in self.skipped]
        lines += [f"  fresh    {name}" for name in self.fresh]
        return "\n".join(lines)


def transfer(model: nn.Module, tensors: Mapping[str, Tensor]) -> Transfer:
    """Copy into ``model`` every tensor of the body whose name and shape match; heads and final layers stay fresh.

    The report names what was copied, what was skipped and why, and what of the model was not touched.

    Raises:
        WeightsError: nothing matches, so these are not the weights of such a body.
    """
    own, matched, skipped = model.state_dict(), [], []
    for key, tensor in sorted(tensors.items()):
        reason = _why_not(key, tensor, own)
        if reason is None:
            matched.append(key)
        else:
            skipped.append(f"{key} {tuple(getattr(tensor, 'shape', ()))}: {reason}")
    if not matched:
        raise WeightsError("none of these tensors fits this model by name and shape; a PET body of its width is needed")
    with torch.no_grad():
        for key in matched:
            own[key].copy_(tensors[key])
    return Transfer(tuple(matched), tuple(skipped), tuple(sorted(own.keys() - set(matched))))


def _why_not(key: str, tensor: Tensor, own: Mapping[str, Tensor]) -> str | None:
    if not key.startswith("body."):
        return "heads start fresh"
    if key not in own:
        return "the model has no such tensor"
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        return "no tensor of floating-point numbers"
    if own[key].shape != tensor.shape:
        return f"the model's has shape {tuple(own[key].shape)}"
    if not tensor.isfinite().all():
        return "values that are not finite"
    return None
