"""GFN2-xTB energies, forces, frontier orbitals and dipole of molecules: labels for the study beside.

    python -m analysis.scd.label_properties MOLECULES.xyz --out molecules_xtb.extxyz

Every frame gets energy (eV) and forces (eV/Å), and in its info homo, lumo, gap (eV) and dipole_moment (D). The file
grows frame by frame; the same command goes on where it was stopped. Frames that do not converge are named and left out.
"""

from pathlib import Path

import click
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write

from omnicalc.errors import InputError

KEYS = ("homo", "lumo", "gap", "dipole_moment")  # ase takes "dipole" out of the info when it reads a file


def labelled(atoms: Atoms) -> Atoms:
    """A copy with its labels. Raises ``RuntimeError`` when the self-consistent charges do not converge."""
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / units.Bohr, charge=atoms.info.get("charge", 0))
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    levels = np.asarray(result.get("orbital-energies")) * units.Hartree
    occupied = np.asarray(result.get("orbital-occupations")).reshape(len(levels), -1).sum(1) > 1.0
    made = Atoms(atoms.numbers, atoms.positions)
    made.info = {k: v for k, v in atoms.info.items() if k in ("molecule", "charge", "smiles")}
    made.info.setdefault("molecule", atoms.get_chemical_formula())
    homo, lumo = levels[occupied].max(), levels[~occupied].min()
    dipole = np.linalg.norm(np.asarray(result.get("dipole"))) * units.Bohr / units.Debye
    made.info |= dict(zip(KEYS, map(float, (homo, lumo, lumo - homo, dipole)), strict=True))
    forces = -np.asarray(result.get("gradient")) * units.Hartree / units.Bohr
    made.calc = SinglePointCalculator(made, energy=float(result.get("energy")) * units.Hartree, forces=forces)
    return made


@click.command()
@click.argument("molecules", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--most", type=click.IntRange(min=1), help="Stop after so many frames.")
def main(molecules, out, most):
    if out.suffix != ".extxyz":
        raise InputError(f"'{out}' given; a name that ends in .extxyz is needed")
    note = out.with_suffix(".done")
    done = int(note.read_text()) if note.is_file() else 0
    if out.exists() and not note.is_file():
        raise InputError(f"'{out}' is there, but was not made by this command; give another --out")
    for k, atoms in enumerate(iread(molecules, index=f"{done}:" if most is None else f"{done}:{most}"), start=done):
        try:
            write(out, labelled(atoms), format="extxyz", append=True)
        except RuntimeError as error:
            click.echo(f"frame {k}: left out ({' '.join(str(error).split())[:80]})", err=True)
        note.write_text(str(k + 1))
        if (k + 1) % 100 == 0:
            click.echo(f"{k + 1} frames", err=True)


if __name__ == "__main__":
    main()
