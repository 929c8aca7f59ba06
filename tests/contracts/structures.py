"""Small structures for the contract tests, made here."""

import numpy as np
from ase import Atoms
from ase.build import molecule

from omnicalc.systems import Systems


def waters(n: int, cell, seed: int = 0, spacing: float = 3.1) -> Atoms:
    """``n`` waters in random orientations on a grid, distorted so that no force vanishes by symmetry."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n ** (1 / 3)))
    box = Atoms()
    for k in range(n):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += spacing * np.array([k % side, k // side % side, k // side**2])
        box += water
    box.positions += rng.normal(scale=0.03, size=box.positions.shape)
    if cell is not None:
        box.set_cell(cell)
        box.pbc = True
    return box


def triclinic_waters() -> Atoms:
    """Eight waters in a skewed box of about 1 g/cm3, smaller than twice a usual cutoff."""
    return waters(8, [[6.3, 0, 0], [0.7, 6.2, 0], [-0.5, 0.4, 6.4]])


def salt_waters() -> Atoms:
    """Six waters, one Na and one Cl in a skewed periodic box."""
    box = waters(8, [[6.4, 0, 0], [0.6, 6.3, 0], [-0.4, 0.5, 6.5]], seed=1)
    oxygen = [a.index for a in box if a.symbol == "O"]
    symbols = np.array(box.get_chemical_symbols(), dtype=object)
    symbols[oxygen[0]], symbols[oxygen[7]] = "Na", "Cl"
    box.set_chemical_symbols(symbols.tolist())
    del box[[oxygen[0] + 1, oxygen[0] + 2, oxygen[7] + 1, oxygen[7] + 2]]
    return box


def symmetric_molecules() -> list[Atoms]:
    """Hydrogens around one oxygen, in a line and as a tetrahedron: no molecules, but their symmetry."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    return [Atoms("OH2", [[0, 0, 0], [0.95, 0, 0], [-0.95, 0, 0]]), Atoms("OH4", [[0, 0, 0], *(1.05 * corners)])]


def water_and_a_far_atom(device: str) -> Systems:
    """Two waters, in a box so short along x that molecules meet their images, and an oxygen that nothing is near."""
    atoms = Atoms(waters(2, None) + Atoms("O", positions=[[0, 20, 0]]), cell=[4.5, 40.0, 40.0], pbc=True)
    return Systems.from_atoms(atoms).to(device)
