"""Energies of free atoms in their ground states: the zeros that heads of total energies take off, and their ions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from omnicalc.data.labels.label import LabelError
from omnicalc.data.labels.method import Method, labeller, program
from omnicalc.errors import InputError
from omnicalc.files import not_writable, write_atomically

# Multiplicity 2S+1 of the ground state: NIST Atomic Spectra Database.
_GROUND_STATES = {
    "H": 2, "He": 1, "Li": 2, "Be": 1, "B": 2, "C": 3, "N": 4, "O": 3, "F": 2, "Ne": 1, "Na": 2, "Mg": 1, "Al": 2,
    "Si": 3, "P": 4, "S": 3, "Cl": 2, "Ar": 1, "K": 2, "Ca": 1, "Zn": 1, "Ga": 2, "Ge": 3, "As": 4, "Se": 3, "Br": 2,
    "Kr": 1,
}  # fmt: skip
_IONS = {"H": 1, "Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Zn": 2, "F": -1, "Cl": -1, "Br": -1}  # closed shells


def free_atoms(symbols: Sequence[str], method: Method) -> dict:
    """``{"level_of_theory", "program", "settings", "atoms": {symbol: eV}, "ions": {"Na+1": eV}}``.

    Raises:
        InputError: an element whose ground state is not in the table, or that the method cannot do.
    """
    from ase import Atoms

    if not symbols:
        raise InputError("--free-atoms without a symbol; give some, as in 'H C N O'")
    unknown = [s for s in symbols if s not in _GROUND_STATES]
    if unknown:
        raise InputError(f"no ground state known for {', '.join(unknown)}; known: {', '.join(_GROUND_STATES)}")
    label = labeller(method)
    atoms, ions, settings = {}, {}, method.settings

    def energy(symbol: str, charge: int, spin: int) -> float:
        try:
            found = label(Atoms(symbol, info={"charge": charge, "spin": spin}))
        except LabelError as error:
            raise InputError(f"free {symbol} with charge {charge}: {error}") from None
        return round(found.energy, 8)

    for symbol in dict.fromkeys(symbols):
        atoms[symbol] = energy(symbol, 0, _GROUND_STATES[symbol])
        charge = _IONS.get(symbol)
        if charge is not None:
            ions[f"{symbol}{charge:+d}"] = 0.0 if symbol == "H" else energy(symbol, charge, 1)
    return {
        "level_of_theory": method.name,
        "program": program(method),
        "settings": settings,
        "unit": "eV",
        "atoms": atoms,
        "ions": ions,
    }


def write_free_atoms(symbols: Sequence[str], method: Method, out: Path) -> str:
    """Write :func:`free_atoms` as JSON; the text is also a table for the terminal."""
    if out.exists():
        raise InputError(f"'{out}' is there already; choose another --out")
    reason = not_writable(out.parent)
    if reason is not None:
        raise InputError(f"--out {out}: {reason}")
    found = free_atoms(symbols, method)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda path: path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8"))
    lines = [f"{name:<6}{energy:18.6f} eV" for part in ("atoms", "ions") for name, energy in found[part].items()]
    return "\n".join([f"free atoms and ions, {method.name}", *lines, f"{out}"])
