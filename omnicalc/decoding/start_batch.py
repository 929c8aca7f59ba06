"""One start as the network takes it."""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.units import fs
from torch import Tensor

from omnicalc.models.atom.physical import Start


def batch_of(atoms: Atoms, times_fs: Sequence[float], dtype: torch.dtype = torch.float64) -> tuple[Start, Tensor]:
    """A batch of one molecule, velocities in Å/fs, and times (1, T) fs."""
    numbers = torch.from_numpy(np.array(atoms.numbers, dtype=np.int64))[None]
    x, v = (torch.from_numpy(a)[None].to(dtype) for a in (atoms.get_positions(), atoms.get_velocities() * fs))
    return Start(numbers, x, v), torch.as_tensor(np.asarray(times_fs), dtype=dtype)[None]
