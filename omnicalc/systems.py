"""``Systems``: a flat batch of structures as tensors, checked once.

Everything past this border (neighbour lists, potentials, molecular dynamics) may rely on what is checked
here: at least one atom per structure, finite positions and cells, known elements, a usable cell vector along
every periodic axis, no two atoms on top of each other, and a whole-numbered charge and spin that fit the
number of electrons.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.charge_and_spin import charge_and_spin
from omnicalc.errors import InputError
from omnicalc.structure_checks import check_distances, check_structure

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, eq=False)
class Systems:
    """S structures with N atoms in all; every tensor lies on the same device.

    Positions stay as they were given: nothing is wrapped into the cell.
    """

    positions: Tensor  # (N, 3) float64, Å
    numbers: Tensor  # (N,) int64
    cell: Tensor  # (S, 3, 3) float64, Å, rows are lattice vectors; zeros where there is none
    pbc: Tensor  # (S, 3) bool
    charge: Tensor  # (S,) int64, e
    spin: Tensor  # (S,) int64, multiplicity 2S+1
    system: Tensor  # (N,) int64, ascending: the structure each atom belongs to

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def n_systems(self) -> int:
        return self.cell.shape[0]

    @cached_property
    def counts(self) -> Tensor:
        """(S,) int64: atoms per structure."""
        return torch.bincount(self.system, minlength=self.n_systems)

    @property
    def device(self) -> torch.device:
        return self.positions.device

    @classmethod
    def from_atoms(
        cls, atoms: Atoms | Sequence[Atoms], *, charge: int | None = None, spin: int | None = None
    ) -> Systems:
        """Check one ``ase.Atoms``, or a sequence of them, and pack it into tensors on the CPU.

        ``charge`` (e) and ``spin`` (multiplicity 2S+1) are defaults for structures that do not carry their
        own; see :func:`omnicalc.charge_and_spin.charge_and_spin`. Raises :class:`InputError` naming the structure
        (when there are several), the atom and the remedy.
        """
        frames = [atoms] if hasattr(atoms, "get_positions") else _listed(atoms)
        if not frames:
            raise InputError("no structure was given; at least one is needed")
        parts = []
        for k, frame in enumerate(frames):
            try:
                parts.append(_one(frame, charge, spin))
            except InputError as error:
                where = f"structure {k} of {len(frames)}: " if len(frames) > 1 else ""
                raise InputError(f"{where}{error}") from None
        return cat(parts)

    def to_atoms(self) -> list[Atoms]:
        """One ``ase.Atoms`` per structure, with ``info["charge"]`` and ``info["spin"]`` set."""
        from ase import Atoms

        array = {f.name: getattr(self, f.name).detach().cpu().numpy() for f in fields(self)}
        out = []
        for s in range(self.n_systems):
            info = {"charge": int(array["charge"][s]), "spin": int(array["spin"][s])}
            mine = array["system"] == s
            numbers, positions = array["numbers"][mine], array["positions"][mine]
            out.append(Atoms(numbers, positions, cell=array["cell"][s], pbc=array["pbc"][s], info=info))
        return out

    def to(self, device: torch.device | str) -> Systems:
        """The same structures on another device."""
        return Systems(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def with_positions(self, positions: Tensor) -> Systems:
        """The same structures at other ``positions`` (N, 3), Å; only the shape is checked."""
        if positions.shape != self.positions.shape:
            given, needed = tuple(positions.shape), tuple(self.positions.shape)
            raise InputError(f"positions of shape {given} given; {needed} needed")
        return replace(self, positions=positions.to(torch.float64))


def _listed(frames: object) -> list:
    """Several structures, each of them one. Raises :class:`InputError` for what is none."""
    items = list(frames) if isinstance(frames, Iterable) and not isinstance(frames, str) else [frames]
    wrong = [item for item in items if not hasattr(item, "get_positions")]
    if wrong:
        raise InputError(
            f"{wrong[0]!r} given; ase.Atoms or a list of them is needed (ase.io.read('file.xyz') makes one from a file)"
        )
    return items


def cat(systems: Sequence[Systems]) -> Systems:
    """Join batches on one device into one, keeping their order."""
    if len(systems) == 1:
        return systems[0]
    joined = {f.name: torch.cat([getattr(s, f.name) for s in systems]) for f in fields(Systems)}
    first = itertools.accumulate((s.n_systems for s in systems[:-1]), initial=0)
    joined["system"] = torch.cat([s.system + k for s, k in zip(systems, first, strict=True)])
    return Systems(**joined)


def split(systems: Systems) -> list[Systems]:
    """The structures of a batch, each as a batch of its own; views of its tensors."""
    if systems.n_systems == 1:
        return [systems]
    counts = systems.counts.tolist()
    parts = zip(counts, systems.positions.split(counts), systems.numbers.split(counts), strict=True)
    return [
        Systems(
            positions,
            numbers,
            systems.cell[k : k + 1],
            systems.pbc[k : k + 1],
            systems.charge[k : k + 1],
            systems.spin[k : k + 1],
            systems.system.new_zeros(count),
        )
        for k, (count, positions, numbers) in enumerate(parts)
    ]


def _one(atoms: Atoms, charge: int | None, spin: int | None) -> Systems:
    check_structure(atoms)
    check_distances(atoms)
    total, multiplicity = charge_and_spin(atoms, charge, spin)
    return Systems(
        positions=torch.from_numpy(np.array(atoms.positions, dtype=np.float64)),
        numbers=torch.from_numpy(np.array(atoms.numbers, dtype=np.int64)),
        cell=torch.from_numpy(np.array(atoms.cell.array, dtype=np.float64))[None],
        pbc=torch.from_numpy(np.array(atoms.pbc, dtype=bool))[None],
        charge=torch.tensor([total]),
        spin=torch.tensor([multiplicity]),
        system=torch.zeros(len(atoms), dtype=torch.int64),
    )
