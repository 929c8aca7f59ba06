"""RNA of a crystal structure, made into what a force field knows: whole nucleotides, single ions, waters.

Force fields have no templates for much of what a crystal shows. So, before hydrogens are added:

    ligands             (neither nucleotide, ion nor water) are left out
    ends of a chain     nucleotides that lack heavy atoms, as disordered ones do, are left out
    5' end              its phosphate is left out: the chain begins with O5'
    ions                of two nearer than 3.5 Å, alternatives of each other, the first stays
    waters              one within 2.3 Å of another atom that stays is left out; of an ion, within 1.8 Å
    names               O1P and O2P are OP1 and OP2; ions are residues named after their element
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnicalc.errors import InputError

if TYPE_CHECKING:
    from openmm import app

_SUGAR = ("C5'", "O5'", "C4'", "O4'", "C3'", "O3'", "C2'", "O2'", "C1'")
_BASES = {
    "A": "N9 C8 N7 C5 C6 N6 N1 C2 N3 C4",
    "G": "N9 C8 N7 C5 C6 O6 N1 C2 N2 N3 C4",
    "C": "N1 C2 O2 N3 C4 N4 C5 C6",
    "U": "N1 C2 O2 N3 C4 O4 C5 C6",
}
NUCLEOTIDES = tuple(_BASES)
PHOSPHATE = ("P", "OP1", "OP2", "OP3", "O1P", "O2P", "O3P")
IONS = {"Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Zn": 2, "Cl": -1}  # charges
WATERS = ("HOH", "WAT")
_RENAMED = {"O1P": "OP1", "O2P": "OP2", "O3P": "OP3"}
_IONS_APART, _WATERS_APART, _FROM_ION = 3.5, 2.3, 1.8  # Å

Pieces = list[tuple[str, list[int]]]  # what it is (nucleotides, ion or water), and its atoms


def holds_rna(topology: app.Topology) -> bool:
    """Whether some residue is a nucleotide of RNA."""
    return any(residue.name in NUCLEOTIDES for residue in topology.residues())


def pieces_of(topology: app.Topology, positions: np.ndarray) -> Pieces:
    """Heavy atoms that stay, of a topology with positions (N, 3) Å: strands of nucleotides, ions, waters.

    Raises InputError for a nucleotide inside a strand that lacks heavy atoms.
    """
    strands = [strand for chain in topology.chains() if (strand := _strand(chain))]
    atoms = list(topology.atoms())
    lone = [a.index for a in atoms if a.element and a.element.symbol in IONS and len(list(a.residue.atoms())) == 1]
    ions = _apart(lone, positions, _IONS_APART)
    others = [k for strand in strands for k in strand]
    oxygens = [a.index for a in atoms if a.residue.name in WATERS and a.element and a.element.symbol == "O"]
    free = [k for k in oxygens if _clear(positions[k], positions[others], _WATERS_APART)]
    free = [k for k in free if _clear(positions[k], positions[ions], _FROM_ION)]
    waters = _apart(free, positions, _WATERS_APART)
    return [*(("nucleotides", s) for s in strands), *(("ion", [k]) for k in ions), *(("water", [k]) for k in waters)]


def _strand(chain) -> list[int]:
    """Heavy atoms of the nucleotides of a chain, without incomplete ones at its ends and without a 5' phosphate."""
    residues = [residue for residue in chain.residues() if residue.name in NUCLEOTIDES]
    while residues and _lacks(residues[0]):
        del residues[0]
    while residues and _lacks(residues[-1]):
        del residues[-1]
    for residue in residues:
        if _lacks(residue):
            raise InputError(
                f"nucleotide {residue.name} {residue.id} of chain {chain.id} lacks {_lacks(residue)}; give a structure "
                f"in which only the ends of chains are incomplete"
            )
    heavy = [a for residue in residues for a in residue.atoms() if a.element is not None and a.element.symbol != "H"]
    return [a.index for a in heavy if a.residue is not residues[0] or a.name not in PHOSPHATE]


def _lacks(residue) -> str:
    """Heavy atoms of sugar and base that are not there."""
    there = {a.name for a in residue.atoms()}
    return ", ".join(name for name in (*_SUGAR, *_BASES[residue.name].split()) if name not in there)


def _apart(atoms: list[int], positions: np.ndarray, distance: float) -> list[int]:
    """Atoms, in turn, that keep this distance from those taken before."""
    taken: list[int] = []
    for k in atoms:
        if _clear(positions[k], positions[taken], distance):
            taken.append(k)
    return taken


def _clear(place: np.ndarray, others: np.ndarray, distance: float) -> bool:
    return not len(others) or float(np.linalg.norm(others - place, axis=1).min()) > distance


def assembled(topology: app.Topology, positions: np.ndarray, pieces: Pieces) -> app.Modeller:
    """A Modeller of these pieces, each a chain of its own, with standard names and bonds; positions (N, 3) Å."""
    from openmm import app, unit

    atoms, made, places = list(topology.atoms()), app.Topology(), []
    for kind, indices in pieces:
        chain, last, residue = made.addChain(), None, None
        for k in indices:
            old = atoms[k]
            lone = old.element.symbol.upper()
            if old.residue is not last:
                name = {"ion": lone, "water": "HOH"}.get(kind, old.residue.name)
                residue, last = made.addResidue(name, chain, old.residue.id), old.residue
            name = {"ion": lone, "water": "O"}.get(kind, _RENAMED.get(old.name, old.name))
            made.addAtom(name, old.element, residue)
            places.append(positions[k])
    made.createStandardBonds()
    return app.Modeller(made, np.array(places) * unit.angstrom)
