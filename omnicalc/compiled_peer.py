"""Weights on plain torch as ``torch.compile`` makes them: a peer for the benchmark, not for simulations.

Energy and forces are traced as one graph, the way back through the network included, for one number of atoms and of
neighbour slots; compiling it takes minutes. The graph's edge vectors come from the usual neighbour list.
"""

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch.nn.functional import pad

from omnicalc.errors import InputError
from omnicalc.gradients import forces_from_edges
from omnicalc.models.graph import Graph
from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import Neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems

_SPARE = 8  # neighbour slots beyond those of the first list; more are needed sooner or later, which compiles anew


class CompiledForces:
    """Positions (N, 3), Å, to forces (N, 3), eV/Å. ``backend`` as in ``torch.compile``.

    Raises:
        InputError: direct forces, or a network that looks at more than edge vectors.
    """

    def __init__(self, potential: Potential, atoms: Atoms, backend: str = "inductor"):
        if not potential.conservative or getattr(potential.model, "uses_positions", False):
            raise InputError(
                f"{potential.name_resolved} cannot be compiled for the benchmark: only potentials whose forces are the "
                "gradient of an energy of edge vectors are; leave out --against compiled"
            )
        self._potential, self._backend = potential, backend
        self._systems = Systems.from_atoms(atoms).to(potential.device)
        self._head = potential.head_index(potential.choose_head(self._systems), self._systems)
        self._list = NeighborList(potential.cutoff)
        self._slots, self._compiled = 0, None

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        systems = self._systems.with_positions(torch.from_numpy(positions).to(self._systems.device))
        near = self._list.update(systems)
        edges = near.vectors(systems.positions, systems.cell, systems.system)
        if near.n_slots > self._slots:
            self._slots, self._compiled = near.n_slots + _SPARE, None
        given = self._padded(edges.to(self._potential.dtype), near)
        if self._compiled is None:
            self._compiled = self._compile(near, given)
        return self._compiled(*given).cpu().numpy()

    def _padded(self, edges: Tensor, near: Neighbors) -> tuple[Tensor, Tensor, Tensor]:
        """Edge vectors, sources and mask with all slots; those added are padding as :class:`Neighbors` has it."""
        more = self._slots - near.n_slots
        atoms = torch.arange(len(edges), device=edges.device)
        far = edges.new_tensor([2.0 * near.cutoff, 0.0, 0.0]).repeat(len(edges), more, 1)
        index = torch.cat([near.index, atoms[:, None].repeat(1, more)], 1)
        return torch.cat([edges, far], 1), index, pad(near.mask, [0, more])

    def _compile(self, near: Neighbors, given: tuple[Tensor, Tensor, Tensor]):
        from torch.fx.experimental.proxy_tensor import make_fx

        def forces(edges: Tensor, index: Tensor, mask: Tensor) -> Tensor:
            edges = edges.detach().requires_grad_(True)
            seen = replace(near, index=index, mask=mask, shift=torch.zeros_like(edges, dtype=torch.float64), known=None)
            energies = self._potential.model(Graph.build(self._systems, seen, edges, self._head)).energies
            (gradient,) = torch.autograd.grad(energies.double().sum(), edges)
            return forces_from_edges(gradient.double(), index)

        return torch.compile(make_fx(forces)(*given), backend=self._backend)
