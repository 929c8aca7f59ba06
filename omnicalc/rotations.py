"""How much a potential depends on the orientation of a structure, and its average over orientations.

Some models (AllScAIP, OMNIMOL's direct forces) learn that energies are the same in every orientation and forces turn
along, but do not have it built in. With R_1 .. R_n rotations drawn evenly, E_k the energy of the structure turned by
R_k and F_k its forces turned back, the spread says by how much a result depends on the axes that a file happens to use,
and the mean of E_k and F_k depends on them less.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from omnicalc.errors import InputError
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems

_SEED = 24


@dataclass(frozen=True)
class Spread:
    """Standard deviations over orientations: energy in meV/atom, force components in meV/Å (root mean square)."""

    rotations: int
    energy: float
    force: float

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Turned:
    """One structure in n orientations, all in the axes of the file: energies (n,) eV, forces (n, A, 3) eV/Å."""

    energies: np.ndarray
    forces: np.ndarray

    @property
    def spread(self) -> Spread:
        energy = self.energies.std() / self.forces.shape[1]
        force = np.sqrt(self.forces.var(axis=0).mean())
        return Spread(len(self.energies), 1e3 * float(energy), 1e3 * float(force))

    @property
    def mean(self) -> tuple[float, np.ndarray]:
        """Energy (eV) and forces (A, 3), eV/Å, averaged over the orientations."""
        return float(self.energies.mean()), self.forces.mean(axis=0)


def rotation_matrices(count: int) -> np.ndarray:
    """(count, 3, 3): the identity, then rotations drawn evenly from all, the same ones every time."""
    from scipy.spatial.transform import Rotation

    if type(count) is not int or count < 2:
        raise InputError(f"{count} rotations given; 2 or more are needed, 24 are usual")
    drawn = Rotation.random(count - 1, rng=np.random.default_rng(_SEED)).as_matrix()
    return np.concatenate([np.eye(3)[None], drawn])


def turned(potential: Potential, atoms: Atoms, count: int, *, head: str | None = None) -> Turned:
    """Energies and forces of ``atoms`` in ``count`` orientations, one after the other."""
    energies, forces = [], []
    for matrix in rotation_matrices(count):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ matrix.T)
        moved.positions = atoms.positions @ matrix.T
        systems = Systems.from_atoms(moved).to(potential.device)
        chosen = potential.choose_head(systems, head)
        result = potential(systems, neighbors(systems, potential.cutoff), head=chosen)
        energies.append(result.energy.item())
        forces.append(result.forces.cpu().numpy() @ matrix)
    return Turned(np.array(energies), np.array(forces))


def rotation_spread(potential: Potential, atoms: Atoms, count: int, *, head: str | None = None) -> Spread:
    """The spread of one structure."""
    return turned(potential, atoms, count, head=head).spread


def mean_spread(spreads: Sequence[Spread]) -> Spread:
    """Root mean square of the spreads of several structures."""
    values = np.array([(s.energy, s.force) for s in spreads])
    return Spread(spreads[0].rotations, *np.sqrt(np.square(values).mean(axis=0)).tolist())
