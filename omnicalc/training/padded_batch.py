"""Batches of one fixed shape: what a recorded step reads. Padding has no edges and no weight in the loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from omnicalc.neighbors import Neighbors, Offset
from omnicalc.systems import Systems
from omnicalc.training.example import Batch, Totals
from omnicalc.training.packing import Pack

_MARGIN = 1.03  # larger than the largest pack that was looked at
_ROUND = 16  # atoms are made up to a multiple of this
_OF_ATOMS = ("positions", "numbers", "system", "forces", "force_weight", "index", "mask", "offset")
_OF_STRUCTURES = ("charge", "spin", "counts", "head", "energy", "energy_weight")


@dataclass(frozen=True)
class Shape:
    """Of a padded batch: S structures, the last of which holds the atoms that are none; N atoms with K slots each."""

    structures: int
    atoms: int
    slots: int

    @classmethod
    def around(cls, packs: Sequence[Pack]) -> "Shape":
        """That these packs, and nearly all others like them, fit into."""
        atoms = _MARGIN * max(p.atoms for p in packs)
        return cls(
            structures=math.ceil(_MARGIN * max(len(p.members) for p in packs)) + 1,
            atoms=_ROUND * math.ceil(atoms / _ROUND),
            slots=max(1, *(p.width for p in packs)),
        )

    def takes(self, batch: Batch) -> bool:
        systems, slots = batch.systems, batch.neighbors.n_slots
        return systems.n_systems < self.structures and systems.n_atoms <= self.atoms and slots <= self.slots


def padded(batch: Batch, totals: Totals, force_count: int, shape: Shape) -> dict[str, Tensor] | None:
    """The tensors of a batch made up to ``shape``, by name; None for one that is too large.

    Weights are divided by what the step's means are over (``totals.energies``; ``force_count``), so that sums of them
    are those means. Where images lie stands in ``offset`` alone: cells are not part of it.
    """
    if not shape.takes(batch):
        return None
    systems, near = batch.systems, batch.neighbors
    n, k = near.index.shape
    last = shape.structures - 1
    offset = near.offsets(systems.cell, systems.system)
    found = {
        "positions": systems.positions,
        "numbers": _longer(systems.numbers, shape.atoms, value=int(systems.numbers[0])),  # a known element
        "system": _longer(systems.system, shape.atoms, value=last),
        "forces": batch.forces,
        "force_weight": batch.force_weight / max(1, force_count),
        "index": torch.arange(shape.atoms)[:, None].repeat(1, shape.slots),
        "mask": pad(near.mask, [0, shape.slots - k]),
        "offset": torch.cat([offset, _no_pairs(n, shape.slots - k, near.cutoff)], 1),
        "charge": systems.charge,
        "spin": _longer(systems.spin, shape.structures, value=1),
        "counts": _longer(systems.counts, shape.structures, value=1),  # per-atom errors are divided by it
        "head": batch.head,
        "energy": batch.energy,
        "energy_weight": batch.energy_weight / max(1, totals.energies),
    }
    found["index"][:n, :k] = near.index
    found["offset"] = torch.cat([found["offset"], _no_pairs(shape.atoms - n, shape.slots, near.cutoff)])
    for names, rows in ((_OF_ATOMS, shape.atoms), (_OF_STRUCTURES, shape.structures)):
        for name in names:
            found[name] = _longer(found[name], rows)
    return found


def as_batch(tensors: dict[str, Tensor], cutoff: float) -> Batch:
    """A batch of these very tensors: what is written into them later, it holds. Without stress."""
    structures, atoms = len(tensors["head"]), tensors["positions"]
    cell = atoms.new_zeros(structures, 3, 3)
    pbc = torch.zeros(structures, 3, dtype=torch.bool, device=cell.device)
    names = ("positions", "numbers", "charge", "spin", "system")
    systems = Systems(cell=cell, pbc=pbc, **{name: tensors[name] for name in names})
    systems.__dict__["counts"] = tensors["counts"]
    offset = tensors["offset"]
    near = Neighbors(tensors["index"], torch.zeros_like(offset), tensors["mask"], cutoff, known=Offset.of(offset, cell))
    labels = ("head", "energy", "energy_weight", "forces", "force_weight")
    return Batch(
        systems=systems,
        neighbors=near,
        stress=torch.zeros_like(cell),
        stress_weight=cell.new_zeros(structures),
        **{name: tensors[name] for name in labels},
    )


def _longer(tensor: Tensor, rows: int, value: float = 0) -> Tensor:
    """With more rows, of ``value``."""
    return pad(tensor, [0, 0] * (tensor.ndim - 1) + [0, rows - len(tensor)], value=value)


def _no_pairs(atoms: int, slots: int, cutoff: float) -> Tensor:
    """Offsets (atoms, slots, 3) that make the pair vectors of padding: beyond the cutoff, as in ``Neighbors``."""
    return torch.tensor([-2.0 * cutoff, 0.0, 0.0], dtype=torch.float64).repeat(atoms, slots, 1)
