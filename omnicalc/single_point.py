"""One evaluation of each structure, as plain tables for printing or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.stress import full_3x3_to_voigt_6_stress

from omnicalc.batches import batches
from omnicalc.errors import InputError, RunError

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.calculator import OmniCalc
    from omnicalc.systems import Systems

_SHOWN = 30  # atoms whose forces are printed
_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def single_point(atoms: Atoms, calc: OmniCalc, *, stress: bool | None = None) -> dict:
    """Energy (eV), forces (eV/Å) and stress (Voigt, eV/Å^3, positive under tension) of ``atoms`` by ``calc``.

    ``stress`` None: where it is defined, that is for structures periodic along all three axes, by potentials whose
    forces are the gradient of the energy. The result holds only plain Python values, and what was used: model, hash,
    head, dtype, charge and spin.
    """
    stress = bool(atoms.pbc.all()) and calc.potential.conservative if stress is None else stress
    calc.calculate(atoms, ["energy", "forces", *(["stress"] if stress else [])])
    return _point(atoms, calc, {name: value for name, value in calc.results.items() if stress or name != "stress"})


def single_points(
    frames: Sequence[Atoms], calc: OmniCalc, *, stress: bool | None = None, atoms_per_batch: int = 1000
) -> Iterator[dict]:
    """:func:`single_point` of each of ``frames``, computed in batches of up to ``atoms_per_batch`` atoms.

    Equal to single evaluations but for rounding. Raises :class:`InputError` and :class:`RunError` naming the frame.
    """
    for k, atoms in enumerate(frames if stress else ()):
        try:
            calc.check_stress(atoms)
        except InputError as error:
            raise InputError(f"frame {k}: {error}") from None
    systems = [_systems(k, atoms, calc) for k, atoms in enumerate(frames)]
    if systems:
        from omnicalc.unlike_training import warn_if_unlike

        warn_if_unlike(calc.potential, calc.head, systems)
    for members in batches([len(atoms) for atoms in frames], atoms_per_batch):
        chosen = [frames[k] for k in members]
        defined = calc.potential.conservative and any(atoms.pbc.all() for atoms in chosen)
        with_stress = stress if stress is not None else defined
        results = _batch([systems[k] for k in members], calc, with_stress)
        for k, atoms, found in zip(members, chosen, results, strict=True):
            if not atoms.pbc.all():
                found.pop("stress", None)
            if not all(np.isfinite(value).all() for value in found.values()):
                raise RunError(f"frame {k}: the model gave numbers that are not finite; look for atoms too close")
            yield _point(atoms, calc, found)


def _systems(k: int, atoms: Atoms, calc: OmniCalc) -> Systems:
    """Checked, and of elements that the head knows, which the first structure chooses."""
    from omnicalc.systems import Systems

    try:
        systems = Systems.from_atoms(atoms, charge=calc.default_charge, spin=calc.default_spin)
        calc.choose_head(systems)
        return systems
    except InputError as error:
        raise InputError(f"frame {k}: {error}") from None


def _batch(systems: Sequence[Systems], calc: OmniCalc, stress: bool) -> Iterator[dict]:
    """Results of each structure by the names that ASE has for them."""
    from omnicalc.joint_list import JointList
    from omnicalc.neighbor_list import NeighborList
    from omnicalc.systems import cat

    potential = calc.potential
    lists = JointList([NeighborList(potential.cutoff, 0.0) for _ in systems])
    batch = cat(systems).to(potential.device)
    found = potential.predict(batch, lists, head=calc.head, stress=stress)
    counts = batch.counts.tolist()
    columns = zip(found.energies.cpu().split(counts), found.forces.cpu().split(counts), strict=True)
    for k, (energies, forces) in enumerate(columns):
        point = {"energy": float(found.energy[k]), "energies": energies.numpy(), "forces": forces.numpy()}
        if stress:
            point["stress"] = full_3x3_to_voigt_6_stress(found.stress[k].cpu().numpy())
        yield point


def _point(atoms: Atoms, calc: OmniCalc, found: dict) -> dict:
    from omnicalc.charge_and_spin import origins

    charge, spin = calc.charge_and_spin(atoms)
    potential = calc.potential
    stress = found.get("stress")
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
        "spin_from": origins(atoms, calc.default_charge, calc.default_spin)[1],
        "energy_eV": found["energy"],
        "energies_eV": found["energies"].tolist(),
        "forces_eV_per_A": found["forces"].tolist(),
        "stress_eV_per_A3": None if stress is None else stress.tolist(),
    }


def as_text(point: dict) -> str:
    """The result for people: a few lines, and the forces of small structures."""
    from omnicalc.charge_and_spin import in_words

    forces = np.array(point["forces_eV_per_A"])
    length = np.linalg.norm(forces, axis=1)
    count, worst = len(length), int(length.argmax())
    periodic = "".join(a for a, p in zip("abc", point["pbc"], strict=True) if p) or "nowhere"
    theory = f" ({point['level_of_theory']})" if point["level_of_theory"] not in ("", point["head"]) else ""
    charge = f"{point['charge']:+d}" if point["charge"] else "0"
    lines = [
        f"model      {point['model']}, head {point['head']}{theory}, {point['dtype']} on {point['device']}",
        f"structure  {point['formula']}, {count} atoms, periodic along {periodic}, "
        f"charge {charge}, {in_words(point['spin'], point['spin_from'])}",
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
