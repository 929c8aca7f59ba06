"""The neighbour list as kernels read it: slots by target with a bound per atom, and the same edges by source."""

from dataclasses import dataclass

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
