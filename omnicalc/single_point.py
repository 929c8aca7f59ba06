"""One evaluation of one structure, as a plain table for printing or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import units

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.calculator import OmniCalc

_SHOWN = 30  # atoms whose forces are printed
_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def single_point(atoms: Atoms, calc: OmniCalc, *, stress: bool | None = None) -> dict:
    """Energy (eV), forces (eV/Å) and stress (Voigt, eV/Å^3, positive under tension) of ``atoms`` by ``calc``.

    ``stress`` None: where it is defined, that is for structures periodic along all three axes. The result
    holds only plain Python values, and what was used: model, hash, head, dtype, charge and spin.
    """
    stress = bool(atoms.pbc.all()) if stress is None else stress
    calc.calculate(atoms, ["energy", "forces", *(["stress"] if stress else [])])
    found = calc.results
    charge, spin = calc.charge_and_spin(atoms)
    potential = calc.potential
    return {
        "model": potential.name_resolved,
        "sha256": potential.sha256,
        "head": calc.head,
        "level_of_theory": potential.heads[calc.head].level_of_theory,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "device": str(potential.device),
        "formula": atoms.get_chemical_formula(),
        "symbols": list(atoms.symbols),
        "pbc": atoms.pbc.tolist(),
        "charge": charge,
        "spin": spin,
        "energy_eV": found["energy"],
        "energies_eV": found["energies"].tolist(),
        "forces_eV_per_A": found["forces"].tolist(),
        "stress_eV_per_A3": found["stress"].tolist() if stress else None,
    }


def as_text(point: dict) -> str:
    """The result for people: a few lines, and the forces of small structures."""
    forces = np.array(point["forces_eV_per_A"])
    length = np.linalg.norm(forces, axis=1)
    count, worst = len(length), int(length.argmax())
    periodic = "".join(a for a, p in zip("abc", point["pbc"], strict=True) if p) or "nowhere"
    theory = f" ({point['level_of_theory']})" if point["level_of_theory"] not in ("", point["head"]) else ""
    charge = f"{point['charge']:+d}" if point["charge"] else "0"
    lines = [
        f"model      {point['model']}, head {point['head']}{theory}, {point['dtype']} on {point['device']}",
        f"structure  {point['formula']}, {count} atoms, periodic along {periodic}, "
        f"charge {charge}, spin {point['spin']}",
        f"energy     {point['energy_eV']:.6f} eV ({point['energy_eV'] / count:.6f} eV/atom)",
        f"forces     rms {np.sqrt((forces**2).mean()):.4f} eV/Å per component, "
        f"largest {length[worst]:.4f} eV/Å on atom {worst} ({point['symbols'][worst]})",
    ]
    if point["stress_eV_per_A3"] is not None:
        stress = np.array(point["stress_eV_per_A3"]) / units.GPa
        values = "  ".join(f"{name} {value:.4f}" for name, value in zip(_VOIGT, stress, strict=True))
        lines.append(f"stress     {values} GPa; pressure {-stress[:3].mean():.4f} GPa")
    if count <= _SHOWN:
        lines.append("forces (eV/Å)     x            y            z")
        for k, (symbol, row) in enumerate(zip(point["symbols"], forces, strict=True)):
            lines.append(f"{k:6d} {symbol:<2} " + " ".join(f"{value:12.6f}" for value in row))
    else:
        lines.append(f"           the forces on all {count} atoms: --json")
    return "\n".join(lines)

