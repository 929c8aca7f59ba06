"""What every model sees of a batch of structures (atoms, heads, dense neighbours with edge vectors) and gives back.

Most models need no more. One that looks at positions beyond its neighbours (all pairs of a molecule, say) declares
``uses_positions = True`` and finds ``positions``, ``origin``, ``cell`` and ``pbc`` filled; forces and stress then come
from them (:mod:`omnicalc.gradients`).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from omnicalc.kernels.edge_lists import EdgeLists, FlatEdges
from omnicalc.neighbors import Neighbors
from omnicalc.systems import Systems

_ON_A_FACE = 1e-6  # cell lengths by which an atom may lie outside the cell and count as inside


@dataclass(frozen=True)
class Graph:
    """Atoms and their neighbours, in the dtype of the model.

    The K slots of row i hold the sources j of target atom i; slots with ``mask == False`` are padding: their
    vectors are finite, longer than any cutoff, and carry no gradient.
    """

    numbers: Tensor  # (N,) int64 atomic numbers
    system: Tensor  # (N,) int64, structure of each atom
    charge: Tensor  # (S,) int64, e
    spin: Tensor  # (S,) int64, multiplicity 2S+1
    head: Tensor  # (S,) int64, index of the head that each structure asks for
    index: Tensor  # (N, K) int64, source atom of each slot
    shift: Tensor  # (N, K, 3) integer-valued lattice translation of the source image
    mask: Tensor  # (N, K) bool
    vectors: Tensor  # (N, K, 3) r_i - r_j(image), Å
    distances: Tensor  # (N, K) Å
    positions: Tensor | None = None  # (N, 3) Å, from the centroid of each structure; as they are, not wrapped
    cell: Tensor | None = None  # (S, 3, 3) Å, zeros where there is none
    pbc: Tensor | None = None  # (S, 3) bool
    origin: Tensor | None = None  # (S, 3) float64 Å, the centroids that positions count from; no gradient
    systems: Systems | None = None  # what the graph was built of, for what only few models ask

    @classmethod
    def build(
        cls,
        systems: Systems,
        neighbors: Neighbors,
        vectors: Tensor,
        head: Tensor,
        *,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        origin: Tensor | None = None,
    ) -> "Graph":
        """Graph on the edge ``vectors`` (N, K, 3), already in the dtype of the model, as are ``positions`` and
        ``cell`` if given; ``origin`` is float64.
        """
        return cls(
            numbers=systems.numbers,
            system=systems.system,
            charge=systems.charge,
            spin=systems.spin,
            head=head,
            index=neighbors.index,
            shift=neighbors.shift,
            mask=neighbors.mask,
            vectors=vectors,
            distances=vectors.square().sum(-1).sqrt(),
            positions=positions,
            cell=cell,
            pbc=None if positions is None else systems.pbc,
            origin=origin,
            systems=systems,
        )

    @property
    def wrapped_shift(self) -> Tensor:
        """(N, K, 3) lattice translation of the source image from the source's place in the cell to the target's: the
        same wherever whole lattice vectors were added to atoms, as molecular dynamics does that never wraps them.
        """
        systems = self.systems
        inverse = torch.linalg.pinv(systems.cell)[self.system]  # zeros where there is no cell
        fractions = torch.einsum("na,nab->nb", systems.positions.detach(), inverse)
        cells = torch.floor(fractions + _ON_A_FACE) * systems.pbc[self.system]
        return self.shift.to(cells.dtype) + cells[self.index] - cells.unsqueeze(1)

    @cached_property
    def edge_lists(self) -> EdgeLists:
        """The same edges by target and by source, for the fused kernels; built once for all blocks."""
        return EdgeLists.build(self.index, self.mask)

    @cached_property
    def flat_edges(self) -> FlatEdges:
        """The same edges without the padding, for the native kernel of attention; built once for all blocks."""
        return FlatEdges.build(self.index, self.mask)

    def nearest(self, keep: Tensor, cap: int | None) -> "Graph":
        """The subset of neighbours with ``keep`` (N, K) true, by distance, at most the ``cap`` nearest per target.

        Of equally distant ones the first slots are taken, as by Triton's kernels: the choice is the same in any batch,
        but where the cap cuts between them it, and with it the energy, depends on the order of the atoms.
        """
        keep = keep & self.mask
        width = int(keep.sum(1).max()) if keep.numel() else 0
        if cap is not None:
            width = min(width, cap)
        order = self.distances.detach().masked_fill(~keep, torch.inf)
        slots = order.sort(dim=1, stable=True).indices[:, :width]
        slots3 = slots.unsqueeze(-1).expand(-1, -1, 3)
        mask = keep.gather(1, slots)
        return replace(
            self,
            index=self.index.gather(1, slots),
            shift=self.shift.gather(1, slots3),
            mask=mask,
            vectors=self.vectors.gather(1, slots3),
            distances=self.distances.gather(1, slots),
        )


@dataclass(frozen=True)
class ModelOutput:
    """What every model gives back."""

    energies: Tensor  # (N,) per-atom energies, without reference energies, eV
    forces: Tensor | None = None  # (N, 3) direct forces, eV/Å; None for models that use gradients
    deviations: Tensor | None = None  # (M, N) eV, what each member of a committee says beyond ``energies``, when asked
