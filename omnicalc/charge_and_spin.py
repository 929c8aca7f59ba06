"""Total charge and spin of a structure: the one place where they are decided. Needs no torch, for labels need none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

_CHARGE_SUM = 0.01  # e; initial charges that alone give the total charge add up to a whole number within this


def charge_and_spin(atoms: Atoms, charge: int | None = None, spin: int | None = None) -> tuple[int, int]:
    """Total charge (e) and spin multiplicity (2S+1) of a structure.

    1. ``atoms.info["charge"]`` and ``atoms.info["spin"]``, where present;
    2. else ``charge`` and ``spin`` as given by the caller (keyword, command line), for structures that carry none;
    3. else, for the charge, the rounded sum of the initial charges when any is set;
    4. else, where a PDB file has formal charges (``atoms.info["formal_charges"]``), an error that asks for the charge;
    5. else charge 0 and the lowest multiplicity that fits the number of electrons.

    Two sources that disagree are an error, never a silent choice. Initial magnetic moments are not read.

    Raises :class:`InputError` for values that are not whole, for sources that disagree, and for a
    multiplicity that the number of electrons, sum(Z) - charge, does not allow (even numbers need an odd
    multiplicity, odd numbers an even one).
    """
    total = _agree("charge", atoms.info.get("charge"), charge)
    initial = _initial_charge_sum(atoms)
    if initial is not None:
        total = _with_initial_charges(total, initial)
    if total is None:
        _check_formal_charges(atoms)
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


def charge_of(atoms: Atoms, where: str) -> int:
    """Total charge of one of several structures; errors say ``where``."""
    try:
        return charge_and_spin(atoms)[0]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


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
            f"multiplicity 2S+1; the lowest is {lowest}. Set charge= and spin= of the structure "
            "(atoms.info), or --charge and --spin where the command has them"
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


def _check_formal_charges(atoms: Atoms) -> None:
    """Those of a PDB file name charged atoms, but seldom all of them: too little to take, too much to pass over."""
    total = atoms.info.get("formal_charges")
    if total:
        raise InputError(
            f"formal charges in the PDB file add up to {total:+d}, and few such files have those of all atoms; say the "
            f"total charge, as with --charge {total} where the command has it, or as charge={total} in an extended XYZ "
            "file of the structure"
        )


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
                "charge= of the structure (atoms.info) or --charge, or take the initial charges off"
            )
        return round(initial)
    if round(initial) != total:
        raise InputError(
            f"charge {total} contradicts the initial charges, which add up to {initial:.4f}; make them "
            "agree, or take the initial charges off: atoms.set_initial_charges([0] * len(atoms))"
        )
    return total
