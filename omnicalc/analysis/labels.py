"""What a topology says of each atom beyond its element: name, residue, bonds, mass; and selecting by that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from omnicalc.analysis.molecules import describe_molecules, guess_bonds, molecules_of
from omnicalc.analysis.quiet import quietly
from omnicalc.analysis.topology import READ_BY_MDANALYSIS, UNKNOWN, composition, data_suffix
from omnicalc.errors import InputError

_WHOLE_BOND_LISTS = {".psf", ".prmtop", ".parm7", ".top", ".tpr", ".mol2", ".data"}  # PDB names some bonds only


@dataclass(frozen=True)
class Labels:
    """Names of N atoms; all arrays (N,) but ``bonds`` (B, 2) and ``positions`` (N, 3) of the first frame, Å."""

    elements: np.ndarray  # str
    names: np.ndarray  # str, such as CA or OP1
    resnames: np.ndarray  # str
    resids: np.ndarray  # int, as the file numbers residues
    segments: np.ndarray  # str: chain or segment
    bonds: np.ndarray  # int
    bonds_from: str  # "topology", or "distances" of the first frame
    positions: np.ndarray
    box: np.ndarray | None
    masses: np.ndarray  # amu; zero where neither file nor element tells

    @cached_property
    def molecules(self) -> np.ndarray:
        """Molecule number of every atom (N,)."""
        return molecules_of(self.bonds, len(self.elements))

    @cached_property
    def kinds(self) -> np.ndarray:
        """Chemical formula of the molecule that each atom belongs to (N,) str: ``H2O``, ``Na``."""
        from ase.formula import Formula

        order = np.argsort(self.molecules, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.molecules[order])) + 1)
        kinds, memo = np.empty(len(order), dtype=object), {}
        for group in groups:
            key = tuple(sorted(str(e) for e in self.elements[group]))
            if key not in memo:
                memo[key] = Formula.from_list(list(key)).format("hill")
            kinds[group] = memo[key]
        return kinds

    def atom(self, index: int) -> str:
        """A readable name: ``HOH12:O#33``, the number behind # counting all atoms from 0."""
        return f"{self.resnames[index]}{self.resids[index]}:{self.names[index]}#{index}"

    def select(self, text: str, option: str) -> np.ndarray:
        """Atom indices of a selection, sorted; see :func:`select`."""
        return select(self, text, option)

    def doubts(self) -> list[str]:
        """A note where the names cannot be right: hydrogens that nothing is bonded to."""
        hydrogens = np.flatnonzero(self.elements == "H")
        alone = len(hydrogens) - int(np.isin(hydrogens, self.bonds).sum())
        if not alone or len(hydrogens) == len(self.elements):
            return []
        return [
            f"{alone} of {len(hydrogens)} hydrogens have no bonded neighbour in the first frame: is the topology "
            f"that of this trajectory, in the same order (--top FILE)?"
        ]

    @cached_property
    def bonded_to(self) -> list[np.ndarray]:
        """Indices of the atoms bonded to each atom."""
        both = np.concatenate([self.bonds, self.bonds[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        return np.split(both[:, 1], np.searchsorted(both[:, 0], np.arange(1, len(self.elements))))


def read_labels(
    path: Path, elements: np.ndarray, positions: np.ndarray, box: np.ndarray | None, masses: np.ndarray
) -> Labels:
    """Labels of the atoms of a topology or trajectory file, given its elements (N,), masses (N,) and one frame.

    Names and residues come from files that have them; else each molecule is a residue, named HOH for water,
    after its element for a lone atom, and MOL otherwise. Bonds come from .psf, .prmtop, .tpr and .mol2 files, else
    from distances (:func:`omnicalc.analysis.molecules.guess_bonds`).
    """
    bonds, came_from = None, "distances"
    named = None
    if data_suffix(path) in READ_BY_MDANALYSIS:
        with quietly():
            import MDAnalysis

            named = MDAnalysis.Universe(str(path), to_guess=()).atoms
        if data_suffix(path) in _WHOLE_BOND_LISTS and hasattr(named, "bonds") and len(named.bonds):
            bonds, came_from = chemical_bonds(named.bonds.indices.astype(np.int64), elements, masses), "topology"
    if bonds is None:
        bonds = guess_bonds(positions, elements, box)
    return labels_of(named, elements, bonds, came_from, positions, box, masses)


def chemical_bonds(bonds: np.ndarray, elements: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """The bonds (B, 2) of a force field without those that are none: to virtual sites, and between the hydrogens of
    rigid water, which Amber and CHARMM list for the sake of their constraints.
    """
    site = (elements == UNKNOWN) & (masses == 0)
    bonds = bonds[~site[bonds].any(axis=1)]
    between = (elements[bonds] == "H").all(axis=1)
    held = np.isin(bonds, bonds[~between]).any(axis=1)  # by an atom that is no hydrogen, unlike those of H2
    return bonds[~(between & held)]


def labels_of(atoms, elements, bonds, came_from: str, positions, box, masses) -> Labels:
    """Labels from an MDAnalysis AtomGroup, or without one (``atoms`` None) from the molecules alone."""
    if atoms is not None and hasattr(atoms, "names") and hasattr(atoms, "resnames"):
        names, resnames = (np.asarray(x, dtype=str) for x in (atoms.names, atoms.resnames))
        resids = np.asarray(getattr(atoms, "resids", atoms.resindices + 1), dtype=np.int64)
        given = (getattr(atoms, name, None) for name in ("chainIDs", "segids"))
        segments = next((np.asarray(s, dtype=str) for s in given if s is not None and any(s)), None)
        segments = np.full(len(elements), "A") if segments is None else segments
    else:
        names, resnames, resids = _from_molecules(elements, molecules_of(bonds, len(elements)))
        segments = np.full(len(elements), "A")
    return Labels(elements, names, resnames, resids, segments, bonds, came_from, positions, box, masses)


def _from_molecules(elements: np.ndarray, molecules: np.ndarray):
    names, resnames = np.empty(len(elements), dtype=object), np.empty(len(elements), dtype=object)
    order = np.argsort(molecules, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(molecules[order])) + 1):
        symbols = sorted(elements[group])
        resnames[group] = "HOH" if symbols == ["H", "H", "O"] else symbols[0].upper() if len(symbols) == 1 else "MOL"
        seen: dict[str, int] = {}
        for k in group:
            seen[elements[k]] = seen.get(elements[k], 0) + 1
            names[k] = f"{elements[k]}{seen[elements[k]]}"
        if symbols == ["H", "H", "O"]:
            names[group[elements[group] == "O"]] = "O"
    return names.astype(str), resnames.astype(str), molecules + 1


def select(labels: Labels, text: str, option: str) -> np.ndarray:
    """Atom indices of ``text``: elements (``O`` or ``O,N``), or MDAnalysis's selection language.

    The language knows ``resname``, ``resid``, ``name``, ``element``, ``protein``, ``nucleic``, ``water``,
    ``around`` (in the first frame) and more. Raises InputError, naming ``option`` and what the file holds, for a
    text that is no selection or selects nothing.
    """
    symbols = [part.strip().capitalize() for part in text.split(",")]
    from ase.data import atomic_numbers

    if all(symbol in atomic_numbers and symbol != UNKNOWN for symbol in symbols):
        found = np.flatnonzero(np.isin(labels.elements, symbols))
    else:
        found, failure = None, None
        with quietly():
            try:
                found = np.sort(_universe(labels).select_atoms(text).indices)
            except Exception as error:  # the parser raises whatever it met
                failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        if failure is not None:
            raise InputError(
                f"{option} {text!r} is neither an element nor a selection ({failure}); write it as O, as N,O, "
                f"or as 'resname ALA and name CA'"
            )
    if not len(found):
        raise InputError(f"{option} {text!r} selects no atom; there are {holds(labels)}")
    return found


def holds(labels: Labels) -> str:
    """What there is to select: elements, and a few residues and atom names."""
    elements = ", ".join(f"{e} ({n})" for e, n in composition(labels.elements).items())
    residues = _few(labels.resnames)
    molecules = describe_molecules(labels.molecules, labels.elements)
    return f"the elements {elements}, the residues {residues}, the molecules {molecules}"


def _few(values: np.ndarray, most: int = 8) -> str:
    different = list(dict.fromkeys(values.tolist()))
    return ", ".join(different[:most]) + (f" and {len(different) - most} more" if len(different) > most else "")


def _universe(labels: Labels):
    import MDAnalysis

    change = np.flatnonzero(
        (np.diff(labels.resids) != 0)
        | (labels.resnames[1:] != labels.resnames[:-1])
        | (labels.segments[1:] != labels.segments[:-1])
    )
    of_residue = np.zeros(len(labels.elements), dtype=int)
    of_residue[change + 1] = 1
    of_residue = np.cumsum(of_residue)
    first = np.unique(of_residue, return_index=True)[1]
    segments, of_segment = np.unique(labels.segments[first], return_inverse=True)
    universe = MDAnalysis.Universe.empty(
        len(labels.elements),
        n_residues=len(first),
        n_segments=len(segments),
        atom_resindex=of_residue,
        residue_segindex=of_segment,
        trajectory=True,
    )
    universe.add_TopologyAttr("names", labels.names)
    universe.add_TopologyAttr("types", labels.elements)
    universe.add_TopologyAttr("elements", labels.elements)
    universe.add_TopologyAttr("masses", labels.masses)
    universe.add_TopologyAttr("resnames", labels.resnames[first])
    universe.add_TopologyAttr("resids", labels.resids[first])
    universe.add_TopologyAttr("segids", segments)
    universe.add_TopologyAttr("chainIDs", labels.segments)
    universe.add_TopologyAttr("bonds", [tuple(bond) for bond in labels.bonds])
    universe.atoms.positions = labels.positions
    universe.dimensions = labels.box
    return universe
