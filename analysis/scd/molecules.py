"""Small molecules of many kinds, by putting groups on rings, chains and bonds: structures for the study beside.

    python -m analysis.scd.molecules --out molecules.extxyz
    python -m analysis.scd.molecules --out geometries.extxyz --molecules 20000 --relaxed

Every molecule gives a conformer of RDKit relaxed by MMFF94, and a frame after 150 fs of Langevin dynamics at 300 K on
MMFF94 from there; with ``--relaxed`` the conformer alone, which is what to learn denoising from: in a thermal frame the
noise that was added hides among the displacements that were there. Molecules with the same canonical SMILES are one.
The seed decides which of the many that can be made are.
"""

from collections.abc import Callable
from itertools import chain, combinations_with_replacement
from pathlib import Path

import click
import numpy as np
from ase import Atoms, units
from ase.io import write

from omnicalc.errors import InputError
from omnicalc.files import write_atomically

BODIES = (  # {0} and {1} are where groups go
    "c1cc({0})ccc1{1}", "c1ccc({0})c({1})c1", "c1c({0})cccc1{1}", "c1cc({0})ncc1{1}", "c1c({0})cncc1{1}",
    "c1nc({0})cc({1})n1", "c1cc({0})oc1{1}", "c1cc({0})sc1{1}", "c1cc({0})[nH]c1{1}", "c1c({0})[nH]nc1{1}",
    "c1nc({0})n({1})c1", "c1sc({0})nc1{1}", "c1oc({0})nc1{1}", "C1CC({0})CCC1{1}", "C1C({0})CCC1{1}", "C1C({0})C1{1}",
    "C1CC({0})OC1{1}", "C1CC({0})N({1})C1", "C1OC({0})CN({1})C1", "C1C({0})SCC1{1}", "C1=CC({0})CCC1{1}", "C({0}){1}",
    "C({0})C{1}", "CC({0})C{1}", "C({0})=C{1}", "CC({0})=C{1}", "C({0})#C{1}", "C({0})CC{1}", "C({0})OC{1}",
    "C({0})N(C){1}", "C({0})SC{1}", "C({0})C(=O)C{1}", "C({0})C(=O)N{1}", "C({0})C(=O)OC{1}", "N({0})C(=O)N{1}",
    "C({0})=NC{1}", "O=C1C({0})CCN1{1}", "O=C1C=CC({0})=CN1{1}", "C({0})S(=O)(=O)C{1}", "C({0})=NO{1}",
)  # fmt: skip
GROUPS = (
    "[H]", "C", "CC", "C(C)C", "C=C", "C#C", "O", "OC", "CO", "N", "NC", "N(C)C", "C=O", "C(C)=O", "C(=O)O", "C(=O)N",
    "C#N", "F", "Cl", "S", "SC", "C(F)F", "C(F)(F)F", "N(=O)=O", "NC=O", "OC=O", "CN", "CF", "CCl", "C1CC1",
)  # fmt: skip
STEPS = 150  # of 1 fs, from the relaxed to the thermal frame


def all_smiles(largest: int) -> list[str]:
    """Canonical SMILES of all molecules of at most ``largest`` atoms, in order."""
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        raise InputError("building molecules needs RDKit: pip install 'omnicalc[label]'") from None
    RDLogger.DisableLog("rdApp.*")
    found = set()
    for body in BODIES:
        for pair in combinations_with_replacement(GROUPS, 2):
            for one, other in {pair, pair[::-1]}:
                molecule = Chem.MolFromSmiles(body.format(one, other))  # None where valences do not fit
                if molecule is not None and Chem.AddHs(molecule).GetNumAtoms() <= largest:
                    found.add(Chem.MolToSmiles(molecule))
    return sorted(found)


def frames_of(smiles: str, seed: int, steps: int = STEPS) -> list[Atoms]:
    """The relaxed conformer and the frame after ``steps`` of dynamics, if any; none where RDKit finds no conformer or
    MMFF94 lacks parameters.
    """
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=seed) != 0 or not AllChem.MMFFHasAllMoleculeParams(molecule):
        return []
    if AllChem.MMFFOptimizeMolecule(molecule, maxIters=500) < 0:
        return []
    relaxed = molecule.GetConformer().GetPositions()
    field = AllChem.MMFFGetMoleculeForceField(molecule, AllChem.MMFFGetMoleculeProperties(molecule))
    atoms = Atoms([atom.GetAtomicNum() for atom in molecule.GetAtoms()], relaxed)
    atoms.info = {"molecule": smiles, "smiles": smiles, "charge": 0, "kind": "relaxed"}
    if not steps:
        return [atoms]

    def forces(x: np.ndarray) -> np.ndarray:
        flat = x.ravel().tolist()
        field.CalcEnergy(flat)  # brings the distances up to date, which the gradient takes as they were left
        return -np.array(field.CalcGrad(flat)).reshape(-1, 3)

    warm = atoms.copy()
    warm.positions = dynamics(atoms, forces, seed, steps)
    warm.info["kind"] = "thermal"
    return [atoms, warm] if np.isfinite(warm.positions).all() else []


def dynamics(atoms: Atoms, forces: Callable, seed: int, steps: int) -> np.ndarray:
    """Positions after Langevin dynamics (BAOAB, 1 fs, friction 1/20 fs) at 300 K; ``forces`` in kcal/mol/Å."""
    rng, x, dt = np.random.default_rng(seed), atoms.positions.copy(), units.fs
    mass, unit = atoms.get_masses()[:, None], units.kcal / units.mol
    spread = np.sqrt(units.kB * 300 / mass)
    kept = np.exp(-1 / 20)
    v = spread * rng.normal(size=x.shape)
    f = unit * forces(x)
    for _ in range(steps):
        v += 0.5 * dt * f / mass
        x += 0.5 * dt * v
        v = kept * v + np.sqrt(1 - kept**2) * spread * rng.normal(size=x.shape)
        x += 0.5 * dt * v
        f = unit * forces(x)
        v += 0.5 * dt * f / mass
    return x


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File, .extxyz.")
@click.option("--molecules", default=2500, show_default=True, type=click.IntRange(min=10))
@click.option("--largest", default=22, show_default=True, help="Atoms of the largest molecule.")
@click.option("--relaxed", is_flag=True, help="No thermal frames.")
@click.option("--seed", default=0, show_default=True)
def main(out, molecules, largest, relaxed, seed):
    """Molecules with up to two groups on a body, two frames of each, or the relaxed one alone."""
    if out.suffix != ".extxyz":
        raise InputError(f"'{out}' given; a name that ends in .extxyz is needed")
    names = all_smiles(largest)
    click.echo(f"{len(names)} molecules of at most {largest} atoms can be made", err=True)
    made: list[list[Atoms]] = []
    for k in np.random.default_rng(seed).permutation(len(names)):
        if len(made) == molecules:
            break
        if frames := frames_of(names[k], seed + int(k) + 1, 0 if relaxed else STEPS):
            made.append(frames)
            if len(made) % 500 == 0:
                click.echo(f"{len(made)} molecules", err=True)
    write_atomically(out, lambda temporary: write(temporary, list(chain(*made)), format="extxyz"))
    click.echo(f"{sum(map(len, made))} frames of {len(made)} molecules: {out}")


if __name__ == "__main__":
    main()
