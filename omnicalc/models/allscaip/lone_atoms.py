"""Energies of atoms alone in the vacuum, which the release reads from a table in the place of its network.

The table is of OMol25's level of theory, and so of the head ``omol``. Heads that were trained from there are of others,
with reference energies of their own: their lone atoms are the network's.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from omnicalc.errors import InputError
from omnicalc.models.graph import Graph, ModelOutput

OMOL = "omol"  # the data set, and so the level of theory and the head, that there is a table for


class LoneAtoms:
    """A table symbol -> charge (as text) -> energy above the head's reference energy, eV; of one head."""

    def __init__(self, table: Mapping[str, Mapping[str, float]], head: int):
        from ase.data import atomic_numbers

        self.head = head
        self.energies = {
            (atomic_numbers[symbol], int(charge)): energy
            for symbol, row in table.items()
            for charge, energy in row.items()
        }

    def put_into(self, output: ModelOutput, graph: Graph) -> ModelOutput:
        """``output`` with the table's energy, and no force, for every structure of one atom without lattice
        whose energy is asked of the table's head.

        Raises :class:`InputError` for an element and charge that the table lacks.
        """
        alone = (torch.bincount(graph.system) == 1) & ~_periodic(graph) & (graph.head == self.head)
        if not alone.any():
            return output
        atoms = alone[graph.system].nonzero()[:, 0]
        found = [self._energy(z, q) for z, q in self._states(graph, atoms)]
        energies = output.energies.double()  # float32 would round energies of hundreds of eV
        energies = energies.index_copy(0, atoms, energies.new_tensor(found))
        forces = None if output.forces is None else output.forces.index_fill(0, atoms, 0.0)
        return replace(output, energies=energies, forces=forces)

    def _states(self, graph: Graph, atoms) -> list[tuple[int, int]]:
        charges = graph.charge[graph.system[atoms]]
        return list(zip(graph.numbers[atoms].tolist(), charges.tolist(), strict=True))

    def _energy(self, number: int, charge: int) -> float:
        if (number, charge) in self.energies:
            return self.energies[number, charge]
        from ase.data import chemical_symbols

        known = sorted(q for z, q in self.energies if z == number)
        charges = ", ".join(f"{q:+d}" if q else "0" for q in known) or "no charge at all"
        raise InputError(
            f"a lone {chemical_symbols[number]} atom of charge {charge:+d}: these weights take lone atoms from a "
            f"table, which knows it with {charges}; set atoms.info['charge'] (or --charge) accordingly"
        )


def _periodic(graph: Graph):
    """(S,) whether a structure has a lattice, as far as the graph can tell: without one there are no neighbours."""
    if graph.pbc is not None:
        return graph.pbc.any(1)
    neighbors = graph.mask.any(1)
    periodic = torch.zeros_like(graph.charge, dtype=torch.bool)
    return periodic.index_put((graph.system,), neighbors, accumulate=True)
