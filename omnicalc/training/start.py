"""Weights to begin with: from another run or a published potential, tensor by tensor, with a report."""

from collections.abc import Mapping, Sequence
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


def elements_of(card: Card) -> Sequence[int] | None:
    """Atomic numbers that the tables of its network have rows for, in their order; None: rows by atomic number."""
    return card.config.get("settings", card.config).get("elements")


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
    old_elements: Sequence[int] | None = None,
) -> Match:
    """Copy into ``model`` every tensor of ``tensors`` of the same name and shape.

    A head that the start does not have begins as the one that ``copy_heads`` names. Tensors that a model lists in
    ``head_rows``, with the number of rows that each head has there, are copied by the heads' names, block by block;
    those in ``element_tables``, of elements or of pairs of them, by the elements (``old_elements``: of the start's
    rows). What it says is ``of_labels`` (their mean and spread) stays its own.
    """
    _check_copies(copy_heads, heads, old_heads)
    source = {head: copy_heads.get(head, head) for head in heads}
    rows, own = getattr(model, "head_rows", {}), getattr(model, "of_labels", ())
    tables = {} if old_elements is None else getattr(model, "element_tables", {})
    match, used = Match(), set()
    for name, target in model.state_dict().items():
        place = _place(name, source)
        used.add(place)
        if name in own:
            continue
        if place not in tensors:
            match.new.append(name)
        elif name in rows:
            _copy_rows(match, name, target, tensors[place], rows[name], source, old_heads)
        elif name in tables:
            _copy_elements(match, name, target, tensors[place], tables[name], model.elements, old_elements)
        elif tensors[place].shape == target.shape:
            target.copy_(tensors[place])
            match.copied.append(name)
            if place != name:
                match.by_head.append(name)
        else:
            match.other_shape.append(name)
    match.unused = [name for name in tensors if name not in used]
    if not match.copied:
        raise InputError("no tensor of the start fits this model: family or sizes in [model] differ")
    return match


def _check_copies(copy_heads: Mapping[str, str], heads: tuple[str, ...], old_heads: tuple[str, ...]) -> None:
    for new, old in copy_heads.items():
        if new not in heads or old not in old_heads:
            raise InputError(
                f"copy_heads: '{new}' = '{old}' given; heads of the recipe are {', '.join(heads)}, "
                f"of the start {', '.join(old_heads)}"
            )


def _place(name: str, source: Mapping[str, str]) -> str:
    """The name that a tensor has under the head it begins as: heads are modules of dictionaries such as energy_heads.

    Nowhere else, since a head may be named like any other module.
    """
    parts = name.split(".")
    for k in range(1, len(parts)):
        if parts[k - 1].endswith("_heads"):
            parts[k] = source.get(parts[k], parts[k])
    return ".".join(parts)


def _copy_rows(
    match: Match,
    name: str,
    target: Tensor,
    found: Tensor,
    rows: int,
    source: Mapping[str, str],
    old_heads: tuple[str, ...],
) -> None:
    """Copy the ``rows`` of ``found`` that belong to the head that each head begins as (``source``, in order)."""
    if found.shape != (rows * len(old_heads), *target.shape[1:]):
        match.other_shape.append(name)
        return
    blocks = found.unflatten(0, (len(old_heads), rows))
    for block, head in zip(target.unflatten(0, (len(source), rows)), source, strict=True):
        if source[head] in old_heads:
            block.copy_(blocks[old_heads.index(source[head])])
    fresh = [head for head in source if source[head] not in old_heads]
    match.new += [f"{name} of {head}" for head in fresh]
    if len(fresh) < len(source):
        match.copied.append(name)
    if any(source[head] != head for head in source):
        match.by_head.append(name)


def _copy_elements(
    match: Match, name: str, target: Tensor, found: Tensor, axes: int, new: Sequence[int], old: Sequence[int]
) -> None:
    """Copy the rows of the elements (``axes`` 1), or of the pairs of elements (2), that both tables know."""
    from ase.data import chemical_symbols

    if found.shape != (len(old) ** axes, *target.shape[1:]):
        match.other_shape.append(name)
        return
    both = [z for z in new if z in old]
    to, of = (torch.tensor([list(table).index(z) for z in both], dtype=torch.int64) for table in (new, old))
    if axes == 1:
        target[to] = found[of]
    else:
        target.unflatten(0, (len(new), -1))[to[:, None], to] = found.unflatten(0, (len(old), -1))[of[:, None], of]
    match.new += [f"{name} of {chemical_symbols[z]}" for z in new if z not in old]
    if both:
        match.copied.append(name)
