"""Several training processes: the few things that they exchange. Started by ``torchrun``; alone, nothing happens."""

import os

import torch
from torch import Tensor
from torch import distributed as dist


class Processes:
    """This process among ``count``; ``rank`` 0 alone writes files and reports."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def add(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sums of the processes' tensors, in one exchange."""
        if self.count == 1:
            return tensors
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        sizes = [t.numel() for t in tensors]
        return [piece.view_as(t) for piece, t in zip(flat.split(sizes), tensors, strict=True)]

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
