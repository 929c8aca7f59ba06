"""Charge and spin of a structure that is to be labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnicalc.charge_and_spin import charge_and_spin
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


def charge_and_unpaired(atoms: Atoms) -> tuple[int, int]:
    """Total charge in e and number of unpaired electrons, by the rule of :func:`charge_and_spin`.

    Raises:
        InputError: what that rule refuses, or no electrons left.
    """
    charge, spin = charge_and_spin(atoms)
    if int(atoms.numbers.sum()) == charge:
        raise InputError(f"charge {charge:+d} leaves no electrons in {atoms.get_chemical_formula()}")
    return charge, spin - 1


def check_not_periodic(atoms: Atoms) -> None:
    """Raise :class:`InputError` for periodic structures: labels here are of molecules and clusters."""
    if atoms.pbc.any():
        raise InputError("periodic structure; labels are of molecules and clusters. Carve one, or set pbc to F F F")
