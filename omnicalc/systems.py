"""``Systems``: a flat batch of structures as tensors, checked once; charge and spin are decided here.

Everything past this border (neighbour lists, potentials, molecular dynamics) may rely on what is checked
here: at least one atom per structure, finite positions and cells, known elements, a usable cell vector along
every periodic axis, no two atoms on top of each other, and a whole-numbered charge and spin that fit the
number of electrons.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.structure_checks import check_distances, check_structure

if TYPE_CHECKING:
    from ase import Atoms

_CHARGE_SUM = 0.01  # e; initial charges that alone give the total charge add up to a whole number within this


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
        own; see :func:`charge_and_spin`. Raises :class:`InputError` naming the structure (when there are
        several), the atom and the remedy.
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


def charge_and_spin(atoms: Atoms, charge: int | None = None, spin: int | None = None) -> tuple[int, int]:
    """Total charge (e) and spin multiplicity (2S+1) of a structure: the one place where they are decided.

    1. ``atoms.info["charge"]`` and ``atoms.info["spin"]``, where present;
    2. else ``charge`` and ``spin`` as given by the caller (keyword, command line), for structures that carry none;
    3. else, for the charge, the rounded sum of the initial charges when any is set;
    4. else charge 0 and the lowest multiplicity that fits the number of electrons.

    Two sources that disagree are an error, never a silent choice. Initial magnetic moments are not read.

    Raises :class:`InputError` for values that are not whole, for sources that disagree, and for a
    multiplicity that the number of electrons, sum(Z) - charge, does not allow (even numbers need an odd
    multiplicity, odd numbers an even one).
    """
    total = _agree("charge", atoms.info.get("charge"), charge)
    initial = _initial_charge_sum(atoms)
    if initial is not None:
        total = _with_initial_charges(total, initial)
    total = 0 if total is None else total
    protons = int(atoms.numbers.sum())
    electrons = protons - total
    if electrons < 0:
        raise InputError(f"charge {total:+d} given; the nuclei allow at most {protons:+d}")
    lowest = 1 + electrons % 2
    multiplicity = _agree("spin", atoms.info.get("spin"), spin)
    multiplicity = lowest if multiplicity is None else multiplicity
    _check_multiplicity(multiplicity, electrons, total, lowest)
    return total, multiplicity


def origins(atoms: Atoms, charge: int | None = None, spin: int | None = None) -> tuple[str, str]:
    """Where :func:`charge_and_spin` has each from: "structure" (``atoms.info``) or "option" (``charge``, ``spin``),
    else "initial charges" or "zero" for the charge and "lowest" for the spin, which nobody has said.
    """
    unsaid = "zero" if _initial_charge_sum(atoms) is None else "initial charges"
    found = []
    for key, given, otherwise in (("charge", charge, unsaid), ("spin", spin, "lowest")):
        own = atoms.info.get(key) is not None
        found.append("structure" if own else "option" if given is not None else otherwise)
    return found[0], found[1]


def in_words(spin: int, origin: str) -> str:
    """The multiplicity for people: one above 1 that nobody has said is marked as such."""
    return f"spin {spin}{' (the lowest possible, none was given)' * (origin == 'lowest' and spin > 1)}"


def _check_multiplicity(multiplicity: int, electrons: int, charge: int, lowest: int) -> None:
    if multiplicity < 1:
        raise InputError(f"spin {multiplicity} given; it is the multiplicity 2S+1, here {lowest} or more")
    if (electrons + multiplicity) % 2 == 0:
        parity = "odd" if electrons % 2 == 0 else "even"
        raise InputError(
            f"spin {multiplicity} does not fit: {electrons} electrons (charge {charge:+d}) need an {parity} "
            f"multiplicity 2S+1; the lowest is {lowest}. Set atoms.info['charge'] and atoms.info['spin'], "
            "or on the command line --charge and --spin"
        )
    if multiplicity > electrons + 1:
        raise InputError(
            f"spin {multiplicity} does not fit: {electrons} electrons have a multiplicity 2S+1 of at most "
            f"{electrons + 1}; the lowest is {lowest}"
        )


def _agree(name: str, own: object, given: object) -> int | None:
    """The value in ``info`` or the one given by the caller, as a whole number; None when neither is set."""
    own = None if own is None else whole_number(own, f"atoms.info['{name}']")
    given = None if given is None else whole_number(given, name)
    if own is not None and given is not None and own != given:
        raise InputError(
            f"atoms.info['{name}'] is {own} but {name}={given} was given; drop one of them "
            "(the structure's own value is enough)"
        )
    return own if own is not None else given


def whole_number(value: object, what: str) -> int:
    """``value`` as an int; InputError, beginning with ``what``, for anything that is not one whole number."""
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        number = float(np.asarray(value).item())  # takes numpy scalars and one-element arrays too
    except (TypeError, ValueError):
        raise InputError(f"{what} is {value!r}; a whole number is needed") from None
    if not number.is_integer():
        raise InputError(f"{what} is {value!r}; a whole number is needed")
    return int(number)


def _initial_charge_sum(atoms: Atoms) -> float | None:
    charges = atoms.get_initial_charges()
    if not charges.any():
        return None
    total = float(charges.sum())
    if not math.isfinite(total):
        raise InputError("an initial charge is not a finite number; set finite initial charges or none")
    return total


def _with_initial_charges(total: int | None, initial: float) -> int:
    if total is None:
        if abs(initial - round(initial)) > _CHARGE_SUM:
            raise InputError(
                f"the initial charges add up to {initial:.4f}, which is not a whole number; set "
                "atoms.info['charge'] (command line: --charge), or take the initial charges off"
            )
        return round(initial)
    if round(initial) != total:
        raise InputError(
            f"charge {total} contradicts the initial charges, which add up to {initial:.4f}; make them "
            "agree, or take the initial charges off: atoms.set_initial_charges([0] * len(atoms))"
        )
    return total


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
