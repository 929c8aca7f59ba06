"""Out of torch's automatic mixed precision, for what computes in the type of its weights alone."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Inside, operations on this kind of device give what they are given, whatever ``torch.autocast`` is around."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
