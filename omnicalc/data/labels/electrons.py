"""Charge and spin of a structure that is to be labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


def charge_and_unpaired(atoms: Atoms) -> tuple[int, int]:
    """Total charge in e and number of unpaired electrons, from ``info["charge"]`` (else 0) and ``info["spin"]``,
    the multiplicity 2S+1 (else the lowest possible).

    Raises:
        InputError: not whole numbers, no electrons left, or a multiplicity that the number of electrons forbids.
    """
    charge = _whole(atoms, "charge", 0)
    electrons = int(atoms.numbers.sum()) - charge
    if electrons < 1:
        raise InputError(f"charge {charge} leaves {electrons} electrons in {atoms.get_chemical_formula()}")
    spin = _whole(atoms, "spin", 1 + electrons % 2)
    unpaired = spin - 1
    if not 0 <= unpaired <= electrons or (electrons - unpaired) % 2:
        near = "even" if electrons % 2 else "odd"
        raise InputError(
            f"{atoms.get_chemical_formula()} with charge {charge} has {electrons} electrons, so its multiplicity "
            f"2S+1 is {near}; spin={spin} given. Correct charge= or spin= in the file"
        )
    return charge, unpaired


def check_not_periodic(atoms: Atoms) -> None:
    """Raise :class:`InputError` for periodic structures: labels here are of molecules and clusters."""
    if atoms.pbc.any():
        raise InputError("periodic structure; labels are of molecules and clusters. Carve one, or set pbc to F F F")


def _whole(atoms: Atoms, key: str, otherwise: int) -> int:
    value = atoms.info.get(key, otherwise)
    try:
        whole = int(value)
        if whole != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{key}={value} given; a whole number is needed") from None
    return whole
