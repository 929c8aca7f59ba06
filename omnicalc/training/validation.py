"""Errors of the averaged weights on the validation structures: by source, and by config_type within a source."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnicalc.training.dataset import Dataset, Entry
from omnicalc.training.errors_shown import rooted
from omnicalc.training.example import collate
from omnicalc.training.packing import pack
from omnicalc.training.processes import Processes
from omnicalc.training.recipe import Batching

ALL = "all"
_STRUCTURES_A_PACK = 32
_PACKED_TOGETHER = 1000


@dataclass(frozen=True)
class GroupErrors:
    """Means over one source's structures of one config_type, or of all (:data:`ALL`)."""

    source: str
    head: str
    group: str
    structures: int
    errors: dict[str, float]  # NaN where nothing had that label; of stresses, which few data have, there is none then


@contextmanager
def averaged_weights(model: nn.Module, averaged: dict[str, Tensor]) -> Iterator[None]:
    """The model with the running average of its weights in place of the weights."""
    parameters = dict(model.named_parameters())
    kept = {name: parameters[name].data for name in averaged}
    try:
        for name, tensor in averaged.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in kept.items():
            parameters[name].data = tensor


def validate(
    model: nn.Module,
    objective,
    dataset: Dataset,
    budget: Batching,
    processes: Processes,
    device: torch.device,
    limit: int | None = None,
) -> list[GroupErrors]:
    """Errors on the first ``limit`` validation structures of every source, shared out among the processes."""
    was_training = model.training
    model.eval()
    found = []
    for k, source in enumerate(dataset.sources):
        entries = source.valid[:limit]
        groups = sorted({e.config_type for e in entries if e.config_type})
        groups = [ALL, *groups] if len(groups) > 1 else [ALL]
        sums: dict[str, Tensor] = {}
        for members in _packed(entries, _for_validation(budget))[processes.rank :: processes.count]:
            batch = collate([dataset.example(k, e) for e in members], dataset.cutoff).to(device)
            rows = torch.tensor([[g in (ALL, e.config_type) for g in groups] for e in members], dtype=torch.float64)
            for name, (total, count) in objective.errors(model, batch).items():
                pair = torch.stack([total.cpu(), count.cpu()])  # (2, S)
                sums[name] = sums.get(name, 0) + pair @ rows
        sums = _added(sums, objective, len(groups), processes)
        for g, group in enumerate(groups):
            count = sum(group in (ALL, e.config_type) for e in entries)
            errors = {n: float(s[0, g] / s[1, g]) if s[1, g] > 0 else float("nan") for n, s in sums.items()}
            if math.isnan(errors.get("stress_mae", 0.0)):
                del errors["stress_mae"]
            found.append(GroupErrors(source.settings.label, source.settings.head, group, count, rooted(errors)))
    model.train(was_training)
    return found


def _packed(entries: Sequence[Entry], budget: Batching) -> list[list[Entry]]:
    """Structures that go together; packed by the thousand, since packing may take the square of their number."""
    packs, rest = [], []
    for first in range(0, len(entries), _PACKED_TOGETHER):
        members = rest + list(entries[first : first + _PACKED_TOGETHER])
        more, rest = pack(members, [e.size for e in members], budget, len(rest))
        packs += [p.members for p in more]
    return packs + ([rest] if rest else [])


def _for_validation(budget: Batching) -> Batching:
    """The training budget, or several structures at a time where that trains on single ones."""
    if budget.atoms is None and budget.edges is None:
        return Batching(atoms=512, structures=_STRUCTURES_A_PACK)
    return budget


def _added(sums: dict[str, Tensor], objective, groups: int, processes: Processes) -> dict[str, Tensor]:
    """Over all processes; one that had no pack adds zeros."""
    if processes.count == 1:
        return sums
    names = objective.error_names
    mine = [sums.get(n, torch.zeros(2, groups, dtype=torch.float64)) for n in names]
    return dict(zip(names, processes.add(mine), strict=True))
