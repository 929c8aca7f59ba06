"""A step recorded as one CUDA graph: hundreds of launches become one, and no kernel waits for Python."""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from omnicalc.neighbor_list import SkinRows

_ROUND = 16  # slots per atom are made up to a multiple of this, so that lists of nearly the same length fit


class Captured:
    """``compute()`` as one CUDA graph; ``found`` is what it gave, written anew by every call."""

    def __init__(self, compute: Callable, device: torch.device, warm: int = 1):
        """``warm``: runs before the recording, in which kernels are compiled and libraries set themselves up."""
        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(warm):
                    compute()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # the recording has memory of its own
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=side):  # torch's own choice is of the GPU that came first
                self.found = compute()

    def __call__(self) -> None:
        self._graph.replay()


class Recorded:
    """``step(positions, rows, forces=True)`` for one number of atoms and slots, on tensors of its own."""

    def __init__(self, step: Callable, positions: Tensor, rows: SkinRows):
        n, slots = rows.source.shape
        slots = -(-max(1, slots) // _ROUND) * _ROUND
        self._positions = positions.clone()
        self._rows = SkinRows(
            source=rows.source.new_full((n, slots), -1),
            reverse=rows.reverse.new_full((n, slots), -1),
            offset=rows.offset.new_zeros(n, slots, 3),
        )
        self._loaded: SkinRows | None = None
        self._load(rows)
        self._captured = Captured(lambda: step(self._positions, self._rows, forces=True), positions.device)

    def takes(self, rows: SkinRows) -> bool:
        """Whether a list fits into the recorded one."""
        mine = self._rows.source.shape
        return rows.source.shape[0] == mine[0] and mine[1] - 2 * _ROUND <= rows.source.shape[1] <= mine[1]

    def __call__(self, positions: Tensor, rows: SkinRows) -> tuple[Tensor, ...]:
        if rows is not self._loaded:
            self._load(rows)
        self._positions.copy_(positions)
        self._captured()
        return tuple(t.clone() for t in self._captured.found)

    def _load(self, rows: SkinRows) -> None:
        used = rows.source.shape[1]
        for field in fields(SkinRows):
            mine, new = getattr(self._rows, field.name), getattr(rows, field.name)
            mine[:, used:] = -1 if field.name == "source" else 0
            mine[:, :used] = new
        self._loaded = rows
