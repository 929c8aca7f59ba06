"""The physics that every potential keeps, as checks that raise AssertionError; used by the contract classes.

A check takes ``evaluate(systems, *, forces=True, stress=False) -> Prediction``, so that a deliberately wrong potential
can be put in the place of a right one.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms

from omnicalc.neighbor_list import NeighborList
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential, Prediction
from omnicalc.systems import Systems


@dataclass(frozen=True)
class Tolerance:
    """Absolute tolerances; energies per atom in eV, forces in eV/Å, stress in eV/Å^3."""

    energy: float
    force: float
    stress: float
    difference: float  # forces against finite differences of float64 energies


TOLERANCE = {
    torch.float32: Tolerance(energy=2e-6, force=1e-4, stress=5e-6, difference=3e-4),
    torch.float64: Tolerance(energy=1e-11, force=1e-9, stress=2e-9, difference=2e-6),
}


class Evaluate:
    """A potential with one head and a fresh neighbour search at every call.

    ``single``: tolerances in single precision, of a network that is steeper than others.
    """

    def __init__(self, potential: Potential, head: str, single: Tolerance = TOLERANCE[torch.float32]):
        self.potential, self.head, self.single = potential, head, single
        self.dtype = potential.dtype

    @property
    def tolerance(self) -> Tolerance:
        return self.single if self.dtype == torch.float32 else TOLERANCE[self.dtype]

    def __call__(self, systems: Systems, *, forces: bool = True, stress: bool = False) -> Prediction:
        found = neighbors(systems, self.potential.cutoff)
        return self.potential(systems, found, head=self.head, forces=forces, stress=stress)


class EvaluateKernel(Evaluate):
    """The same by the kernel that the potential was told to use, from a neighbour list with a skin."""

    def __call__(self, systems: Systems, *, forces: bool = True, stress: bool = False) -> Prediction:
        found = NeighborList(self.potential.cutoff, skin=0.5)
        return self.potential.predict(systems, found, head=self.head, forces=forces, stress=stress)


class Wrong(Evaluate):
    """A right potential with one mistake made on purpose."""

    def __init__(self, evaluate: Evaluate, mistake):
        super().__init__(evaluate.potential, evaluate.head, evaluate.single)
        self.right, self.mistake = evaluate, mistake

    def __call__(self, systems, *, forces=True, stress=False):
        return self.mistake(systems, self.right(systems, forces=forces, stress=stress))


def add_energy(term):
    """Mistake: ``term(systems)`` (N,) eV is added to the per-atom energies (and its gradient forgotten)."""

    def mistake(systems, right):
        energies = right.energies + term(systems)
        energy = torch.zeros_like(right.energy).index_add(0, systems.system, energies)
        return replace(right, energy=energy, energies=energies)

    return mistake


def scale_forces(factor: float):
    return lambda systems, right: replace(right, forces=factor * right.forces)


def rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def transformed(atoms: Atoms, matrix: np.ndarray) -> Systems:
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ matrix.T)
    moved.positions = atoms.positions @ matrix.T
    return Systems.from_atoms(moved)


def check_orthogonal(evaluate, atoms: Atoms, matrix: np.ndarray) -> None:
    """Energy does not change and forces turn along when the whole structure is rotated or mirrored."""
    tolerance = evaluate.tolerance
    before, after = evaluate(Systems.from_atoms(atoms)), evaluate(transformed(atoms, matrix))
    assert abs(before.energy - after.energy).item() / len(atoms) < tolerance.energy
    turned = before.forces @ torch.from_numpy(matrix.T)
    assert (turned - after.forces).abs().max() < tolerance.force


def check_translation(evaluate, atoms: Atoms) -> None:
    """Nothing changes when all atoms move by the same vector, even a long one."""
    tolerance = evaluate.tolerance
    systems = Systems.from_atoms(atoms)
    moved = systems.with_positions(systems.positions + torch.tensor([13.7, -201.3, 88.1], dtype=torch.float64))
    before, after = evaluate(systems), evaluate(moved)
    assert abs(before.energy - after.energy).item() / len(atoms) < tolerance.energy
    assert (before.forces - after.forces).abs().max() < tolerance.force
    assert before.forces.sum(0).abs().max() < tolerance.force * len(atoms) ** 0.5


def check_permutation(evaluate, atoms: Atoms) -> None:
    """Renumbering the atoms renumbers the results."""
    tolerance = evaluate.tolerance
    order = np.random.default_rng(1).permutation(len(atoms))
    before, after = evaluate(Systems.from_atoms(atoms)), evaluate(Systems.from_atoms(atoms[order]))
    assert (before.energies[order] - after.energies).abs().max() < tolerance.energy * 10
    assert (before.forces[order] - after.forces).abs().max() < tolerance.force


def check_forces(evaluate, reference, atoms: Atoms) -> None:
    """Forces equal central differences of ``reference``'s float64 energy, along random directions."""
    systems, rng, step = Systems.from_atoms(atoms), np.random.default_rng(2), 1e-4
    forces = evaluate(systems).forces
    for _ in range(3):
        direction = rng.normal(size=systems.positions.shape)
        direction = torch.from_numpy(direction / np.linalg.norm(direction))
        up, down = (
            reference(systems.with_positions(systems.positions + s * step * direction), forces=False).energy.item()
            for s in (1, -1)
        )
        slope = (down - up) / (2 * step)
        assert abs(slope - (forces * direction).sum().item()) < evaluate.tolerance.difference


def check_second_derivatives(energy, positions: torch.Tensor) -> None:
    """First and second derivatives of ``energy(positions)``, by autograd, equal central differences along a line."""
    rng, step = np.random.default_rng(3), 1e-4
    direction = torch.from_numpy(rng.normal(size=positions.shape))
    direction = direction / direction.norm()

    def slope(at: float, twice: bool = False) -> list[float]:
        x = (positions + at * direction).requires_grad_()
        (first,) = torch.autograd.grad(energy(x), x, create_graph=twice)
        first = (first * direction).sum()
        return [first.item()] + ([(torch.autograd.grad(first, x)[0] * direction).sum().item()] if twice else [])

    first, second = slope(0.0, twice=True)
    energies = [energy(positions + s * step * direction).item() for s in (1, -1)]
    assert abs(first - (energies[0] - energies[1]) / (2 * step)) < TOLERANCE[torch.float64].difference
    difference = (slope(step)[0] - slope(-step)[0]) / (2 * step)
    assert abs(second - difference) < 1e-5 * max(1.0, abs(difference))


def check_stress(evaluate, reference, atoms: Atoms) -> None:
    """Stress equals central differences of ``reference``'s float64 energy over six strains of cell and positions."""
    systems, step = Systems.from_atoms(atoms), 1e-5
    stress = evaluate(systems, stress=True).stress[0]
    volume = atoms.get_volume()
    for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = torch.zeros(3, 3, dtype=torch.float64)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            deform = torch.eye(3, dtype=torch.float64) + strain
            strained = replace(systems, positions=systems.positions @ deform, cell=systems.cell @ deform)
            energies.append(reference(strained, forces=False).energy.item())
        slope = (energies[0] - energies[1]) / (2 * step * volume)
        assert abs(slope - stress[a, b].item()) < evaluate.tolerance.stress


def check_smooth(evaluate, atoms: Atoms, moving: int, distances: np.ndarray) -> None:
    """Energy and force have no jump while one atom moves along x to ``distances`` from the origin."""
    systems = Systems.from_atoms(atoms)
    energies, forces = [], []
    for distance in distances:
        positions = systems.positions.clone()
        positions[moving, 0] = distance
        result = evaluate(systems.with_positions(positions))
        energies.append(result.energy.item())
        forces.append(result.forces[moving, 0].item())
    # a jump stands out from its neighbours' steps by orders of magnitude; a smooth curve does not
    for curve, floor in ((energies, 1e-9), (forces, 1e-8)):
        bend = np.abs(np.diff(curve, 2))
        assert bend.max() < 20 * np.median(bend) + floor


def check_smooth_at_symmetry(evaluate, atoms: Atoms) -> None:
    """Forces have no jump where symmetry makes vectors vanish whose lengths a network may read."""
    systems = Systems.from_atoms(atoms)
    way = torch.from_numpy(np.random.default_rng(6).normal(size=atoms.positions.shape))
    changes = []
    for step in (1e-4, 1e-5):
        there, back = (evaluate(systems.with_positions(systems.positions + s * step * way)).forces for s in (1, -1))
        changes.append((there - back).abs().max().item())
    assert changes[1] < 0.2 * changes[0] + 2e-6  # a tenth as far changes a smooth force a tenth as much


def check_batch(evaluate, structures: list[Atoms]) -> None:
    """A batch gives what single runs give."""
    tolerance = evaluate.tolerance
    batch = evaluate(Systems.from_atoms(structures))
    first = 0
    for k, atoms in enumerate(structures):
        single = evaluate(Systems.from_atoms(atoms))
        assert abs(batch.energy[k] - single.energy[0]).item() / len(atoms) < tolerance.energy
        part = batch.forces[first : first + len(atoms)]
        assert (part - single.forces).abs().max() < tolerance.force
        first += len(atoms)


def check_separation(evaluate, one: Atoms, other: Atoms, distance: float) -> None:
    """Two neutral structures far apart have the sum of their energies, and their own forces."""
    tolerance = evaluate.tolerance
    far = other.copy()
    far.positions += [distance, 0.0, 0.0]
    together = evaluate(Systems.from_atoms(one + far))
    apart = [evaluate(Systems.from_atoms(a)) for a in (one, other)]
    n_atoms = len(one) + len(other)
    assert abs(together.energy - apart[0].energy - apart[1].energy).item() / n_atoms < tolerance.energy
    assert (together.forces - torch.cat([a.forces for a in apart])).abs().max() < tolerance.force


def check_isolated(evaluate, symbol: str) -> None:
    """A single atom has a finite energy and no force."""
    result = evaluate(Systems.from_atoms(Atoms(symbol, [[0.3, -0.2, 5.0]])))
    assert torch.isfinite(result.energy).all()
    assert result.forces.abs().max() == 0


def check_nve(evaluate, atoms: Atoms, bound: float, steps: int = 80, timestep_fs: float = 0.5) -> None:
    """Velocity Verlet keeps the total energy within ``bound`` eV per atom (line fit over the run)."""
    from ase import units

    systems, dt = Systems.from_atoms(atoms), timestep_fs * units.fs
    masses = torch.from_numpy(atoms.get_masses())[:, None]
    noise = np.random.default_rng(3).normal(size=systems.positions.shape)
    x = systems.positions
    for _ in range(40):  # away from clashes of the start, which would heat it to a thousand kelvin
        x = x + (0.02 * evaluate(systems.with_positions(x)).forces).clamp(-0.03, 0.03)
    v = torch.from_numpy(noise) * (300 * units.kB / masses).sqrt()
    result, totals = evaluate(systems), []
    for _ in range(steps):
        v = v + 0.5 * dt * result.forces / masses
        x = x + dt * v
        result = evaluate(systems.with_positions(x))
        v = v + 0.5 * dt * result.forces / masses
        totals.append((result.energy.item() + 0.5 * (masses * v * v).sum().item()) / len(atoms))
    slope = np.polyfit(np.arange(steps), totals, 1)[0]
    assert abs(slope * steps) < bound
