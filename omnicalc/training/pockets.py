"""Neighbourhoods of protein-ligand complexes: a pocket of whole residues, and the ligand, as two structures."""

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.systems import Systems

RESIDUES = 30
LIGAND_SHIFT, MIXED_SHIFT = 2.0, 5.0  # Å, scale of the random displacement of the centre


def pocket_and_ligand(
    atoms: Atoms, ligand, residue, rng: np.random.Generator, *, residues: int = RESIDUES, shift: float = LIGAND_SHIFT
) -> tuple[Atoms, Atoms]:
    """The ``residues`` nearest to the ligand's centroid moved by ``shift`` times a normal draw (Å), and the ligand.

    ``ligand`` (N,) bool and ``residue`` (N,), a number for each residue. Nearest: by each residue's nearest atom.
    Raises :class:`InputError` for a complex without ligand or without residues.
    """
    ligand, residue = np.asarray(ligand, dtype=bool), np.asarray(residue)
    if not ligand.any() or ligand.all():
        raise InputError("a complex needs atoms of a ligand and atoms of residues; mark the ligand's in `ligand`")
    centre = atoms.positions[ligand].mean(0) + shift * rng.normal(size=3)
    return atoms[_nearest(atoms.positions, residue, ~ligand, centre, residues)], atoms[ligand]


def mixed_neighbourhood(
    atoms: Atoms, ligand, residue, rng: np.random.Generator, *, residues: int = RESIDUES, shift: float = MIXED_SHIFT
) -> Atoms:
    """One structure: the residues nearest to the ligand (in half of the draws, ligand included) or to a random residue,
    the centre moved by ``shift`` times a normal draw (Å).
    """
    ligand, residue = np.asarray(ligand, dtype=bool), np.asarray(residue)
    protein = ~ligand
    if not protein.any():
        raise InputError("this structure has no residues, only a ligand")
    with_ligand = bool(ligand.any()) and rng.random() < 0.5
    middle = ligand if with_ligand else protein & (residue == rng.choice(np.unique(residue[protein])))
    centre = atoms.positions[middle].mean(0) + shift * rng.normal(size=3)
    kept = _nearest(atoms.positions, residue, protein, centre, residues)
    return atoms[kept | ligand if with_ligand else kept]


def pocket_systems(
    systems: Systems, residue: Tensor, kind: str, residues: int, shift: float, rng: np.random.Generator
) -> tuple[Systems, Systems]:
    """What is embedded and what is denoised, of complexes with ``residue`` (N,), below 0 in the ligand.

    ``kind`` "pocket": ligands on their pockets; "ligand": the other way round; "mixed": one and the same neighbourhood.
    """
    numbers = np.split(residue.cpu().numpy(), np.cumsum(systems.counts.cpu().numpy())[:-1])
    embedded, denoised = [], []
    for atoms, mine in zip(systems.to_atoms(), numbers, strict=True):
        atoms.info = {}  # the charge of a part is not that of the whole
        if kind == "mixed":
            parts = (mixed_neighbourhood(atoms, mine < 0, mine, rng, residues=residues, shift=shift),) * 2
        else:
            parts = pocket_and_ligand(atoms, mine < 0, mine, rng, residues=residues, shift=shift)
        embedded.append(parts[kind == "ligand"])
        denoised.append(parts[kind != "ligand"])
    return tuple(Systems.from_atoms(frames).to(systems.device) for frames in (embedded, denoised))


def random_generator(generator: torch.Generator) -> np.random.Generator:
    """One of NumPy that follows from a draw of torch's."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))


def _nearest(positions, residue, protein, centre, count: int) -> np.ndarray:
    """(N,) bool: atoms of the ``count`` residues with an atom nearest to ``centre``."""
    distance = np.linalg.norm(positions - centre, axis=1)
    names = np.unique(residue[protein])
    nearest = np.array([distance[protein & (residue == name)].min() for name in names])
    return protein & np.isin(residue, names[np.argsort(nearest, kind="stable")[:count]])
