"""Several training processes: the few things that they exchange. Started by ``torchrun``, or by
:mod:`omnicalc.training.companions`; alone, nothing happens.
"""

import os

import torch
from torch import Tensor
from torch import distributed as dist

from omnicalc.errors import InputError


class Processes:
    """This process among ``count``; ``rank`` 0 alone writes files and reports. A GPU as ``device`` is its own."""

    def __init__(self, device: torch.device | str = "cpu"):
        """Raises InputError where there are more processes than GPUs."""
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = torch.device(device)
        if self.count == 1:
            return
        if self.device.type == "cuda":
            self.device = _own_gpu(self.device)
            torch.cuda.set_device(self.device)  # where NCCL works
        if not dist.is_initialized():
            # gradients are where the model is, sums over validation structures on the CPU
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")

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
        self.add([torch.zeros(1)])

    def leave(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _own_gpu(device: torch.device) -> torch.device:
    """The GPU of this process: the one of its number on this machine."""
    if device.index is not None:
        raise InputError(f"several processes cannot share '{device}'; use --device cuda, and each takes one of its own")
    local, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= there:
        raise InputError(f"process {local + 1} on this machine needs its own GPU, and there are {there}; start fewer")
    return torch.device("cuda", local)
