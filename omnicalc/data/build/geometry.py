"""Molecules from SMILES: one conformer of RDKit as ``ase.Atoms``, seeded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Piece:
    """One molecule or ion: geometry, formal charge in e, and partial charges (Gasteiger, e) for placing it."""

    atoms: Atoms
    charge: int
    partial: np.ndarray  # (n_atoms,)


def piece(smiles: str, seed: int) -> Piece:
    """A conformer of ``smiles``, embedded by ETKDG from ``seed`` and relaxed by MMFF94 where that knows the atoms.

    Raises:
        InputError: not a SMILES, or no conformer was found.
    """
    from ase import Atoms
    from rdkit.Chem import AllChem

    molecule = _molecule(smiles)
    if molecule.GetNumAtoms() == 1:
        positions = np.zeros((1, 3))
    else:
        copy = type(molecule)(molecule)
        if AllChem.EmbedMolecule(copy, randomSeed=seed % 2**31) != 0 and (
            AllChem.EmbedMolecule(copy, randomSeed=seed % 2**31, useRandomCoords=True) != 0
        ):
            raise InputError(f"RDKit finds no conformer of '{smiles}'; leave it out of the recipe")
        if AllChem.MMFFHasAllMoleculeParams(copy):
            AllChem.MMFFOptimizeMolecule(copy, maxIters=200)
        positions = copy.GetConformer().GetPositions()
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    atoms = Atoms(numbers, positions - positions.mean(axis=0))
    charges = [atom.GetFormalCharge() for atom in molecule.GetAtoms()]
    return Piece(atoms, sum(charges), _partial_charges(smiles, charges))


@lru_cache(maxsize=1000)
def _molecule(smiles: str):
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        raise InputError("building structures needs RDKit; type: pip install 'omnicalc[label]'") from None
    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise InputError(f"'{smiles}' is not a SMILES that RDKit understands")
    return Chem.AddHs(molecule)


def _partial_charges(smiles: str, formal: list[int]) -> np.ndarray:
    """Gasteiger charges; the formal ones where it has no parameters."""
    from rdkit.Chem import AllChem

    molecule = type(_molecule(smiles))(_molecule(smiles))
    AllChem.ComputeGasteigerCharges(molecule)
    charges = np.array([atom.GetDoubleProp("_GasteigerCharge") for atom in molecule.GetAtoms()])
    return charges if len(charges) > 1 and np.isfinite(charges).all() else np.array(formal, dtype=float)
