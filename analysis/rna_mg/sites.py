"""Mg sites of an RNA crystal structure: which there are, and one of them carved out with its waters, or the whole RNA.

A fragment is the dinucleoside monophosphate whose phosphate oxygen the ion holds (the nucleotide of that phosphate and
the one before it, ends capped by OH) with the ion and the oxygens of its first shell. Ligands that are neither water
nor this phosphate (a biotin oxygen at one site of 1F27) give their place to a water oxygen. Hydrogens are placed by
OpenMM with the Amber OL3 force field. The charge, +1 for Mg with one phosphate, is met by one chloride.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from analysis.common.amber import FILES, openmm
from analysis.common.boxes import numbered
from omnicalc.data.build.crystal import IONS, NUCLEOTIDES, PHOSPHATE, Pieces, assembled, pieces_of
from omnicalc.errors import InputError

SHELL = 2.6  # Å, from the ion to the oxygens of its first shell in a crystal structure
OXYGENS = ("OP1", "OP2", "O1P", "O2P")


@dataclass(frozen=True)
class Site:
    """An ion at a phosphate oxygen; numbers are those of the file."""

    name: str  # A36: chain and residue number of the ion
    ion: int  # atom indices
    phosphate: int
    shell: tuple[int, ...]  # other oxygens of its first shell
    nucleotide: tuple[str, str]  # chain and residue number

    def __str__(self) -> str:
        return f"{self.name} ({self.nucleotide[0]} {self.nucleotide[1]}, {1 + len(self.shell)} oxygens)"


class Crystal:
    """A structure as the file has it, first of alternative positions only."""

    def __init__(self, path: Path):
        openmm()
        from openmm import app, unit

        if not path.is_file():
            raise InputError(f"{path} does not exist; give a PDB file with --pdb")
        try:
            pdb = app.PDBFile(str(path))
        except Exception as error:  # the parser raises whatever it met
            raise InputError(f"{path} cannot be read as PDB ({type(error).__name__}: {error})") from None
        self.path, self.topology, self.raw = path, pdb.topology, pdb.positions
        self.positions = np.array(pdb.positions.value_in_unit(unit.angstrom))
        self.atoms = list(pdb.topology.atoms())

    def sites(self, element: str = "Mg") -> list[Site]:
        """Ions that hold exactly one phosphate oxygen; InputError, saying what there is, for none."""
        symbols = np.array([a.element.symbol if a.element else "" for a in self.atoms])
        ions, oxygens = np.flatnonzero(symbols == element), np.flatnonzero(symbols == "O")
        found = []
        for ion in ions.tolist():
            near = oxygens[np.linalg.norm(self.positions[oxygens] - self.positions[ion], axis=1) < SHELL].tolist()
            bound = [k for k in near if self.atoms[k].name in OXYGENS and self.atoms[k].residue.name in NUCLEOTIDES]
            if len(bound) == 1:
                residue, own = self.atoms[bound[0]].residue, self.atoms[ion].residue
                found.append(Site(f"{own.chain.id}{own.id}", ion, bound[0], tuple(k for k in near if k != bound[0]),
                                  (residue.chain.id, residue.id)))  # fmt: skip
        if not found:
            raise InputError(f"{self.path}: of its {len(ions)} {element} none holds one phosphate oxygen ({SHELL} Å)")
        return found

    def fragment(self, site: Site) -> Atoms:
        """One site carved out, with hydrogens, labelled; its charge in ``info``."""
        phosphate = self.atoms[site.phosphate].residue
        chain = [r for r in phosphate.chain.residues() if r.name in NUCLEOTIDES]
        at = chain.index(phosphate)
        if at == 0:
            raise InputError(f"site {site.name}: {phosphate} is the first nucleotide of its chain; nothing precedes it")
        keep = [a.index for a in chain[at - 1].atoms() if a.name not in PHOSPHATE]
        keep += [a.index for a in phosphate.atoms()]
        pieces = [("nucleotides", [k for k in keep if self.atoms[k].element.symbol != "H"])]
        pieces += [("ion", [site.ion]), *(("water", [k]) for k in site.shell)]
        atoms = self._hydrogenated(pieces)
        atoms.info = {"charge": 1}
        return atoms

    def whole(self) -> Atoms:
        """All nucleotides, ions and waters, with hydrogens, as :mod:`omnicalc.data.build.crystal` prepares them."""
        pieces = pieces_of(self.topology, self.positions)
        atoms = self._hydrogenated(pieces)
        ions = sum(IONS[self.atoms[k].element.symbol] for kind, (k, *_) in pieces if kind == "ion")
        atoms.info = {"charge": ions - int((atoms.numbers == 15).sum())}
        return atoms

    def _hydrogenated(self, pieces: Pieces) -> Atoms:
        """Labelled atoms of the pieces, each its own chain, with hydrogens."""
        from openmm import app

        modeller = assembled(self.topology, self.positions, pieces)
        try:
            modeller.addHydrogens(app.ForceField(*FILES))
        except ValueError as error:
            raise InputError(f"{self.path}: hydrogens cannot be placed ({error})") from None
        return _labelled(modeller)


def _labelled(modeller) -> Atoms:
    from openmm import unit

    named = list(modeller.topology.atoms())
    atoms = Atoms([a.element.symbol for a in named],
                  positions=np.array(modeller.positions.value_in_unit(unit.angstrom)))  # fmt: skip
    atoms.set_array("atomtypes", np.array([a.name for a in named], dtype="<U5"))
    atoms.set_array("residuenames", np.array([a.residue.name for a in named], dtype="<U5"))
    atoms.set_array("residuenumbers", np.array([a.residue.index for a in named]))
    atoms.set_array("chains", np.array([a.residue.chain.index for a in named]))
    return numbered(atoms)


def geometry(crystal: Crystal, site: Site) -> dict[str, np.ndarray]:
    """Distances (Å) and angles (degrees) of a site as the crystal has them."""
    x = crystal.positions
    ligands = [site.phosphate, *site.shell]
    arms = x[ligands] - x[site.ion]
    lengths = np.linalg.norm(arms, axis=1)
    cosines = (arms / lengths[:, None]) @ (arms / lengths[:, None]).T
    angles = np.degrees(np.arccos(np.clip(cosines[np.triu_indices(len(arms), 1)], -1, 1)))
    residue = crystal.atoms[site.phosphate].residue
    phosphorus = next(a.index for a in residue.atoms() if a.name == "P")
    bend = get_angle(x[site.ion], x[site.phosphate], x[phosphorus])
    return {"phosphate": lengths[:1], "water": lengths[1:], "cis": angles[angles < 135], "trans": angles[angles >= 135],
            "bend": np.array([bend])}  # fmt: skip


def get_angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Angle a-b-c in degrees."""
    u, v = a - b, c - b
    return float(np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))))
