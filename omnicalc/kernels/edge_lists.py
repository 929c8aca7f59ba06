"""The neighbour list as kernels read it: slots by target with a bound per atom, and the same edges by source."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class EdgeLists:
    """Edge e = i * K + slot runs from source atom j to target atom i. Built without a host synchronisation."""

    source: Tensor  # (N, K) int64: j, or -1 in a slot that is padding
    count: Tensor  # (N,) int64: last used slot + 1
    pointer: Tensor  # (N+1,) int64: edges of source j are edge[pointer[j] : pointer[j+1]]
    edge: Tensor  # (N K,) int64: edges sorted by source, ascending within one; the padding comes last

    @classmethod
    def build(cls, index: Tensor, mask: Tensor) -> "EdgeLists":
        """From sources ``index`` (N, K) int64 and ``mask`` (N, K) bool."""
        n, k = index.shape
        slot = torch.arange(1, k + 1, device=index.device)
        count = (mask * slot).amax(1) if k else index.new_zeros(n)
        by_source, edge = torch.sort(torch.where(mask, index, n).flatten(), stable=True)
        pointer = torch.searchsorted(by_source, torch.arange(n + 1, device=index.device))
        return cls(torch.where(mask, index, -1), count, pointer, edge)


@dataclass(frozen=True)
class FlatEdges:
    """The E edges that exist, one after another by target, and the same by source: how the native kernel reads them.

    ``number`` says where an edge stands in arrays of all N K slots.
    """

    begin: Tensor  # (N+1,) int64: the edges of target i are begin[i] .. begin[i+1] - 1
    number: Tensor  # (E,) int64
    source: Tensor  # (E,) int64
    target: Tensor  # (E,) int64
    leaving: Tensor  # (N+1,) int64: the edges of source j are edge[leaving[j] : leaving[j+1]]
    edge: Tensor  # (E,) int64, ascending for each source

    @classmethod
    def build(cls, index: Tensor, mask: Tensor) -> "FlatEdges":
        """From sources ``index`` (N, K) int64 and ``mask`` (N, K) bool."""
        number = mask.flatten().nonzero().squeeze(1)
        source = index.flatten().index_select(0, number)
        target = number // max(1, index.shape[1])
        _, edge = torch.sort(source, stable=True)
        begin, leaving = (_starts(torch.bincount(atom, minlength=len(index))) for atom in (target, source))
        return cls(begin, number, source, target, leaving, edge)

    @cached_property
    def alone(self) -> "FlatEdges":
        """The same for arrays that hold these edges and no others."""
        return replace(self, number=torch.arange(len(self.source), device=self.source.device))


def _starts(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))
