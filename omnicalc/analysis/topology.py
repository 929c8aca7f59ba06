"""Which file names the atoms of a trajectory, and which element each atom is."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from omnicalc.analysis.quiet import quietly
from omnicalc.errors import InputError

# Formats that hold coordinates without saying what the atoms are (LAMMPS dumps name types, not elements).
NEEDS_TOPOLOGY = {".dcd", ".xtc", ".trr", ".nc", ".ncdf", ".netcdf", ".trj", ".mdcrd", ".crdbox", ".lammpstrj", ".dump"}
TOPOLOGY_SUFFIXES = (".pdb", ".psf", ".gro", ".xyz", ".extxyz", ".prmtop", ".parm7", ".tpr", ".cif")
COMPRESSED = {".gz", ".bz2"}
UNKNOWN = "X"  # virtual sites and names that say nothing

READ_BY_MDANALYSIS = {".pdb", ".psf", ".gro", ".prmtop", ".parm7", ".top", ".tpr", ".mol2", ".pqr", ".data", ".crd"}
ION_NAMES = {"SOD": "Na", "POT": "K", "CLA": "Cl", "CAL": "Ca", "CES": "Cs", "LIT": "Li", "RUB": "Rb"}
_TWO_LETTERS = {
    "CL": "Cl",
    "BR": "Br",
    "SI": "Si",
    "SE": "Se",
    "MG": "Mg",
    "ZN": "Zn",
    "FE": "Fe",
    "AR": "Ar",
    "CU": "Cu",
    "NI": "Ni",
    "PD": "Pd",
    "PT": "Pt",
}
_ONE_LETTER = set("HBCNOFPSKI")


def data_suffix(path: Path) -> str:
    """The suffix that names the format, in lower case, looking through .gz and .bz2."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_topology(trajectory: Path) -> Path:
    """The topology beside a trajectory: topology.pdb, else the trajectory's own stem with a topology suffix.

    Raises InputError that names what was looked for and ``--top``.
    """
    folder, stem = trajectory.parent, trajectory.name
    while Path(stem).suffix.lower() in COMPRESSED | NEEDS_TOPOLOGY:
        stem = Path(stem).stem
    candidates = [folder / "topology.pdb", *(folder / (stem + suffix) for suffix in TOPOLOGY_SUFFIXES)]
    for candidate in candidates:
        if candidate.is_file() and candidate != trajectory:
            return candidate
    raise InputError(
        f"{trajectory} does not say which atoms it holds, and no topology lies beside it "
        f"(looked for topology.pdb and {stem}{{{','.join(TOPOLOGY_SUFFIXES)}}} in {folder}); "
        f"give one with --top FILE"
    )


def read_atoms(topology: Path) -> tuple[np.ndarray, np.ndarray]:
    """Element symbol of every atom, (N,) str, ``X`` where the file does not tell (virtual sites), and the file's own
    masses (N,), amu, zero where it has none.

    Elements are from the file's own column; else, in this order, the names of ions, masses that agree with the
    atom's name, and the name. Raises InputError for a file that is missing, unreadable or without atoms.
    """
    if not topology.is_file():
        raise InputError(f"no topology file {topology}; --top takes a structure file such as topology.pdb")
    reading = _by_mdanalysis if data_suffix(topology) in READ_BY_MDANALYSIS else _by_ase
    symbols, masses, failure = [], None, None
    with quietly():
        try:
            symbols, masses = reading(topology)
        except Exception as error:  # the readers raise whatever their parsers met
            failure = f"{type(error).__name__}: {error}"
    if failure is not None:
        raise InputError(f"{topology} cannot be read as a topology ({failure}); give another one with --top FILE")
    if len(symbols) == 0:
        raise InputError(f"topology {topology} holds no atoms; give another one with --top FILE")
    return np.array(symbols, dtype="<U2"), np.nan_to_num(masses)


def usual_masses(elements: np.ndarray) -> np.ndarray:
    """Standard atomic weights, amu (N,); zero for unknown elements."""
    from ase.data import atomic_masses, atomic_numbers

    return np.array([0.0 if e == UNKNOWN else atomic_masses[atomic_numbers[e]] for e in elements])


def composition(elements: np.ndarray) -> dict[str, int]:
    """How many atoms of each element, (N,) str -> {symbol: count}, in order of first appearance."""
    return dict(Counter(str(e) for e in elements))


def _by_ase(path: Path) -> tuple[list[str], np.ndarray]:
    from ase.io import read

    atoms = read(path, index=0)
    return atoms.get_chemical_symbols(), atoms.get_masses() if atoms.has("masses") else np.zeros(len(atoms))


def _by_mdanalysis(path: Path) -> tuple[list[str], np.ndarray]:
    import MDAnalysis

    atoms = MDAnalysis.Universe(str(path), to_guess=()).atoms  # nothing guessed: masses below are the file's own
    n = len(atoms)
    given = atoms.elements if hasattr(atoms, "elements") else [""] * n
    names = atoms.names if hasattr(atoms, "names") else [""] * n
    residues = atoms.resnames if hasattr(atoms, "resnames") else [""] * n
    masses = atoms.masses if hasattr(atoms, "masses") else np.zeros(n)
    memo: dict[tuple, str] = {}
    rows = zip(given, names, residues, np.round(masses, 4).tolist(), strict=True)
    symbols = [memo[row] if row in memo else memo.setdefault(row, element_of(*row)) for row in rows]
    return without_sites(symbols, given, np.nan_to_num(masses)), masses


def without_sites(symbols: list[str], given, masses: np.ndarray) -> np.ndarray:
    """Elements (N,) from names, but not those of virtual sites, such as OM of CHARMM's waters: the file says that they
    have no mass, while others have. Nor have the hydrogens that GROMACS holds by virtual sites.
    """
    elements = np.array(symbols, dtype="<U2")
    if masses.any():
        named = np.array([not str(element).strip() for element in given])
        elements[(masses == 0) & named & (elements != "H")] = UNKNOWN
    return elements


def element_of(given: str, name: str, residue: str, mass: float) -> str:
    """Element symbol of one atom from what a topology says of it; mass in amu, 0 for unknown."""
    from ase.data import atomic_masses, atomic_numbers, chemical_symbols

    symbol = str(given).strip().capitalize()
    if symbol in atomic_numbers and symbol != UNKNOWN:
        return symbol
    letters = re.sub(r"[^A-Za-z]", "", str(name)).upper()
    ion = re.sub(r"[^A-Za-z]", "", str(residue)).upper()
    named = ION_NAMES.get(letters)
    if named and (letters != "CAL" or ion in {"", "CAL", "CA", "ION", "IONS"}):
        return named  # CAL of a ligand is one of its carbons CAA, CAB, ...
    if letters and letters == ION_NAMES.get(ion, "").upper():
        return ION_NAMES[ion]  # atom NA of residue SOD
    if letters and ion in {letters, "ION", "IONS"} and letters.capitalize() in atomic_numbers:
        return letters.capitalize()  # atom CA of residue CA is calcium; CA of ALA is a carbon
    if mass > 0.5:
        nearest = 1 + int(np.argmin(np.abs(atomic_masses[1:] - mass)))  # entry 0 is ASE's dummy
        found = chemical_symbols[nearest]
        # A repartitioned hydrogen mass makes others look like another element: the name has to agree.
        if abs(atomic_masses[nearest] - mass) < 0.05 and (not letters or letters.startswith(found.upper())):
            return found
    if letters[:2] in _TWO_LETTERS:
        return _TWO_LETTERS[letters[:2]]
    if letters[:1] in _ONE_LETTER:
        return letters[0]
    return letters.capitalize() if letters.capitalize() in atomic_numbers else UNKNOWN
