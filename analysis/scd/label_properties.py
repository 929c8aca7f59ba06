"""Frontier orbitals and dipole of molecules, with GFN2-xTB also energies and forces: labels for the study beside.

    python -m analysis.scd.label_properties MOLECULES.xyz --out molecules_xtb.extxyz
    python -m analysis.scd.label_properties MOLECULES.xyz --out molecules_dft.extxyz --method b3lyp/def2-svp \
        --sample 300 --largest 14

By GFN2-xTB every frame gets energy (eV) and forces (eV/Å), and in its info homo, lumo, gap (eV) and dipole_moment (D).
By a functional and a basis of PySCF (density fitting, closed shells) it gets homo_dft, lumo_dft, gap_dft and
dipole_moment_dft alone. The file grows frame by frame; the same command goes on where it was stopped. Frames that do
not converge are named and left out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write

from omnicalc.data.labels.label import LabelError
from omnicalc.errors import InputError
from omnicalc.files import write_atomically

DFT, DFT_GRID = "_dft", 1  # end of the names of their properties; orbitals and dipoles need no finer grid
KEYS = ("homo", "lumo", "gap", "dipole_moment")  # ase takes "dipole" out of the info when it reads a file


def xtb_labelled(atoms: Atoms) -> Atoms:
    """A copy with its labels. Raises ``RuntimeError`` when the self-consistent charges do not converge."""
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / units.Bohr, charge=atoms.info.get("charge", 0))
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    levels = np.asarray(result.get("orbital-energies")) * units.Hartree
    occupied = np.asarray(result.get("orbital-occupations")).reshape(len(levels), -1).sum(1) > 1.0
    dipole = np.linalg.norm(np.asarray(result.get("dipole"))) * units.Bohr / units.Debye
    made = _with_properties(atoms, levels, occupied, dipole, "")
    forces = -np.asarray(result.get("gradient")) * units.Hartree / units.Bohr
    made.calc = SinglePointCalculator(made, energy=float(result.get("energy")) * units.Hartree, forces=forces)
    return made


def labeller(method: str) -> Callable[[Atoms], Atoms]:
    """What gives a labelled copy, by gfn2-xtb or functional/basis. Raises InputError for a method that is not known.

    What is given back raises RuntimeError or LabelError when nothing converges.
    """
    from omnicalc.data.labels.method import parse_method

    parsed = parse_method(method, grid=DFT_GRID, convergence=1e-6)
    if not parsed.functional:
        return xtb_labelled
    from omnicalc.data.labels.dft import Dft

    theory = Dft(parsed)

    def labelled(atoms: Atoms) -> Atoms:
        field, _ = theory.converged(atoms)
        levels, occupied = np.asarray(field.mo_energy) * units.Hartree, np.asarray(field.mo_occ) > 1.0
        dipole = np.linalg.norm(field.dip_moment(unit="Debye", verbose=0))
        return _with_properties(atoms, levels, occupied, dipole, DFT)

    return labelled


def _with_properties(atoms: Atoms, levels: np.ndarray, occupied: np.ndarray, dipole: float, suffix: str) -> Atoms:
    """A bare copy; ``levels`` in eV, ``dipole`` in D."""
    made = Atoms(atoms.numbers, atoms.positions)
    made.info = {k: v for k, v in atoms.info.items() if k in ("molecule", "charge", "smiles")}
    made.info.setdefault("molecule", atoms.get_chemical_formula())
    homo, lumo = levels[occupied].max(), levels[~occupied].min()
    names = (key + suffix for key in KEYS)
    made.info |= dict(zip(names, map(float, (homo, lumo, lumo - homo, dipole)), strict=True))
    return made


def chosen(frames: Sequence[Atoms], largest: int | None, sample: int | None) -> list[Atoms]:
    """The frames of at most ``largest`` atoms; of them ``sample``, drawn at random and always the same."""
    small = [a for a in frames if largest is None or len(a) <= largest]
    if sample is None:
        return small
    if sample > len(small):
        raise InputError(f"--sample {sample}: there are {len(small)} such frames; give fewer, or a higher --largest")
    return [small[k] for k in sorted(np.random.default_rng(0).permutation(len(small))[:sample])]


@click.command()
@click.argument("molecules", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--method", default="gfn2-xtb", show_default=True, help="Or functional/basis, as in b3lyp/def2-svp.")
@click.option("--largest", type=click.IntRange(min=1), help="Only frames of at most so many atoms.")
@click.option("--sample", type=click.IntRange(min=1), help="So many frames, drawn at random. [default: all]")
def main(molecules, out, method, largest, sample):
    if out.suffix != ".extxyz":
        raise InputError(f"'{out}' given; a name that ends in .extxyz is needed")
    label = labeller(method)
    note = out.with_suffix(".done")
    done = int(note.read_text()) if note.is_file() else 0
    if out.exists() and not note.is_file():
        raise InputError(f"'{out}' is there, but was not made by this command; give another --out")
    frames = chosen(list(iread(molecules, index=":")), largest, sample)
    for k, atoms in enumerate(frames[done:], start=done):
        try:
            write(out, label(atoms), format="extxyz", append=True)
        except (RuntimeError, LabelError) as error:
            click.echo(f"frame {k}: left out ({' '.join(str(error).split())[:80]})", err=True)
        write_atomically(note, lambda temporary, done=k + 1: temporary.write_text(str(done)))
        if (k + 1) % (100 if label is xtb_labelled else 10) == 0:
            click.echo(f"{k + 1} of {len(frames)} frames", err=True)


if __name__ == "__main__":
    main()
