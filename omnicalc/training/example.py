"""One labelled structure ready for training, and a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from omnicalc.neighbors import Neighbors, dense_rows, flat_pairs
from omnicalc.systems import Systems, cat


@dataclass(frozen=True, eq=False)
class Example:
    """A structure with its pairs and labels. What is not to be learned from has a weight of 0 and a label of 0."""

    systems: Systems  # one structure
    i: Tensor  # (E,) int32, target of each pair within the cutoff
    j: Tensor  # (E,) int32, source
    shift: Tensor  # (E, 3) int16, lattice translation of the source
    head: int
    energy: float  # without reference energies, eV
    forces: Tensor  # (N, 3) float32 or float64, eV/Å
    stress: Tensor  # (3, 3), eV/Å^3
    has_energy: bool
    has_forces: bool
    has_stress: bool
    residue: Tensor | None = None  # (N,) int64, number of each atom's residue, below 0 in a ligand; where frames say it

    @property
    def n_atoms(self) -> int:
        return self.systems.n_atoms

    @property
    def n_bytes(self) -> int:
        """Memory it takes."""
        tensors = [self.i, self.j, self.shift, self.forces, self.stress]
        tensors += [getattr(self.systems, f.name) for f in fields(self.systems)]
        return sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True, eq=False)
class Batch:
    """S structures with N atoms: what a model is asked, and what it should answer (float64 labels)."""

    systems: Systems
    neighbors: Neighbors
    head: Tensor  # (S,) int64
    energy: Tensor  # (S,) eV, without reference energies
    energy_weight: Tensor  # (S,) 1 where the energy counts
    forces: Tensor  # (N, 3) eV/Å
    force_weight: Tensor  # (N,) 1 where the forces count
    stress: Tensor  # (S, 3, 3) eV/Å^3
    stress_weight: Tensor  # (S,)
    residue: Tensor | None = None  # (N,) int64, as in examples, where all of them have it

    def to(self, device: torch.device | str) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if value is not None})

    @property
    def has_stress(self) -> bool:
        return bool(self.stress_weight.any())


@dataclass(frozen=True)
class Totals:
    """What a whole step holds, over all its packs and processes: the denominators of its means."""

    structures: int
    atoms: int
    energies: int  # structures whose energy counts
    force_structures: int
    force_atoms: int
    stresses: int

    @classmethod
    def of(cls, examples: Sequence) -> "Totals":
        """Of examples, or of anything that has their ``n_atoms`` and ``has_...``."""
        with_forces = [e for e in examples if e.has_forces]
        return cls(
            structures=len(examples),
            atoms=sum(e.n_atoms for e in examples),
            energies=sum(e.has_energy for e in examples),
            force_structures=len(with_forces),
            force_atoms=sum(e.n_atoms for e in with_forces),
            stresses=sum(e.has_stress for e in examples),
        )


def pairs_of(systems: Systems, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of one structure in few bytes: i, j int32, shift int16."""
    i, j, shift = flat_pairs(systems, cutoff)
    return i.to(torch.int32), j.to(torch.int32), shift.to(torch.int16)


def collate(examples: Sequence[Example], cutoff: float) -> Batch:
    """One batch of several examples; rows of neighbours are as long as the longest needs."""
    systems = cat([e.systems for e in examples])
    first = torch.tensor([0] + [e.n_atoms for e in examples[:-1]]).cumsum(0).tolist()
    i = torch.cat([e.i.long() + k for e, k in zip(examples, first, strict=True)])
    j = torch.cat([e.j.long() + k for e, k in zip(examples, first, strict=True)])
    shift = torch.cat([e.shift.double() for e in examples])
    atoms = [torch.full((e.n_atoms,), float(e.has_forces), dtype=torch.float64) for e in examples]
    return Batch(
        systems=systems,
        neighbors=dense_rows(i, j, shift, systems.n_atoms, cutoff),
        head=torch.tensor([e.head for e in examples]),
        energy=torch.tensor([e.energy for e in examples], dtype=torch.float64),
        energy_weight=torch.tensor([float(e.has_energy) for e in examples], dtype=torch.float64),
        forces=torch.cat([e.forces.double() for e in examples]),
        force_weight=torch.cat(atoms),
        stress=torch.stack([e.stress.double() for e in examples]),
        stress_weight=torch.tensor([float(e.has_stress) for e in examples], dtype=torch.float64),
        residue=None if any(e.residue is None for e in examples) else torch.cat([e.residue for e in examples]),
    )
