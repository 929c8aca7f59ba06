"""Weights to begin with: from another run or a published potential, tensor by tensor, with a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from omnicalc.card import Card
from omnicalc.errors import InputError


@dataclass
class Match:
    """What came of copying."""

    copied: list[str] = field(default_factory=list)
    by_head: list[str] = field(default_factory=list)  # of them, rows or tensors that were taken from another head
    new: list[str] = field(default_factory=list)  # tensors of the model that begin at random
    other_shape: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # tensors of the start that found no place

    def __str__(self) -> str:
        text = f"{len(self.copied)} tensors copied"
        if self.by_head:
            text += f" ({len(self.by_head)} of them by head)"
        for what, names in (
            ("begin at random", self.new),
            ("begin at random, being of another shape", self.other_shape),
            ("of the start are not used", self.unused),
        ):
            if names:
                shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                text += f"; {len(names)} {what}: {shown}"
        return text


def read_start(name: str, family: str) -> tuple[Card, dict[str, Tensor]]:
    """Card and tensors of a weights folder, or of a name in the registry, for a model of ``family``."""
    from safetensors.torch import load

    from omnicalc.registry import resolve, verified_bytes

    folder, card = resolve(name)
    tensors = load(verified_bytes(folder, card))
    return card, backbone_of(tensors) if card.family == "denoiser" and family != "denoiser" else tensors


def backbone_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network inside a denoiser, by the names that it has for itself."""
    from omnicalc.models.denoiser.model import PREFIX

    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}


@torch.no_grad()
def copy_matching(
    model: nn.Module,
    heads: tuple[str, ...],
    tensors: Mapping[str, Tensor],
    old_heads: tuple[str, ...],
    copy_heads: Mapping[str, str],
) -> Match:
    """Copy into ``model`` every tensor of ``tensors`` of the same name and shape.

    A head that the start does not have begins as the one that ``copy_heads`` names. Tables with one row per head are
    copied row by row, by the heads' names. What a model says is ``of_labels`` (their mean and spread) stays its own.
    """
    for new, old in copy_heads.items():
        if new not in heads or old not in old_heads:
            raise InputError(
                f"copy_heads: '{new}' = '{old}' given; heads of the recipe are {', '.join(heads)}, "
                f"of the start {', '.join(old_heads)}"
            )
    source = {head: copy_heads.get(head, head) for head in heads}
    match, used = Match(), set()
    for name, target in model.state_dict().items():
        if name in getattr(model, "of_labels", ()):
            used.add(name)
            continue
        mine = _same_place(name, heads, source)
        found = tensors.get(mine)
        if found is None:
            match.new.append(name)
        elif found.shape == target.shape and not _is_head_table(found, target, old_heads, heads, name):
            target.copy_(found)
            match.copied.append(name)
            used.add(mine)
            if mine != name:
                match.by_head.append(name)
        elif _is_head_table(found, target, old_heads, heads, name):
            for row, head in enumerate(heads):
                if source[head] in old_heads:
                    target[row].copy_(found[old_heads.index(source[head])])
            match.copied.append(name)
            match.by_head.append(name)
            used.add(mine)
        else:
            match.other_shape.append(name)
            used.add(mine)
    match.unused = [name for name in tensors if name not in used]
    if not match.copied:
        raise InputError("no tensor of the start fits this model: family or sizes in [model] differ")
    return match


def _same_place(name: str, heads: tuple[str, ...], source: Mapping[str, str]) -> str:
    """The name that a head's tensor has under the head it begins as."""
    for head in heads:
        inner = f".{head}."
        if inner in name and source[head] != head:
            return name.replace(inner, f".{source[head]}.")
    return name


def _is_head_table(
    found: Tensor, target: Tensor, old_heads: tuple[str, ...], heads: tuple[str, ...], name: str
) -> bool:
    """Whether rows stand for heads: an embedding named after them with one row each."""
    return (
        "head" in name.split(".")
        and found.ndim > 1
        and found.shape[1:] == target.shape[1:]
        and len(found) == len(old_heads)
        and len(target) == len(heads)
    )
