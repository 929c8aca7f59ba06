"""Small potentials with known answers, shaped as the engine expects of bound ones, and jobs of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from torch import Tensor

from omnicalc.gradients import forces_from_edges
from omnicalc.md.job import Job
from omnicalc.md.record import structure_hash
from omnicalc.md.state import State
from omnicalc.neighbor_list import NeighborList
from omnicalc.systems import Systems


class ToyCalculator(Calculator):
    """A bound toy as ASE's integrators ask for it."""

    implemented_properties = ("energy", "free_energy", "forces")

    def __init__(self, bound):
        super().__init__()
        self.bound = bound

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        prediction = self.bound(torch.tensor(atoms.positions))
        energy = float(prediction.energy)
        self.results = {"energy": energy, "free_energy": energy, "forces": prediction.forces.numpy()}


class Harmonic:
    """Every coordinate of every atom in its own well: U = sum k (x - x0)²/2; ``stiffness`` in eV/Å²."""

    def __init__(self, centre: Tensor, stiffness: float = 5.0):
        self.centre, self.stiffness = centre, stiffness

    def __call__(self, positions: Tensor) -> SimpleNamespace:
        d = positions - self.centre
        energy = (0.5 * self.stiffness * d.square().sum()).reshape(1)
        return SimpleNamespace(energy=energy, forces=-self.stiffness * d)


class Pairs:
    """A Lennard-Jones-like pair potential that goes smoothly to zero, over the package's own neighbour list.

    U = sum over pairs of 4 epsilon [(sigma/r)^12 - (sigma/r)^6] s(r),  s = (1 - (r/c)²)³; ``dtype`` is that
    of the pair sum.
    """

    epsilon, sigma, cutoff = 0.0104, 3.4, 6.0

    def __init__(self, systems: Systems, dtype: torch.dtype = torch.float64, skin: float = 0.5):
        self.systems, self.dtype = systems, dtype
        self.neighbor_list = NeighborList(self.cutoff, skin)
        self.head = "toy"

    def __call__(self, positions: Tensor, *, stress: bool = False) -> SimpleNamespace:
        systems = self.systems.with_positions(positions.detach().clone())
        found = self.neighbor_list.update(systems)
        vectors = found.vectors(systems.positions, systems.cell, systems.system)
        edges = vectors.to(self.dtype, copy=True).requires_grad_()
        r2 = edges.square().sum(-1)
        six = (self.sigma**2 / r2) ** 3
        pair = 4 * self.epsilon * (six * six - six) * (1 - r2 / self.cutoff**2).clamp(min=0) ** 3
        energy = 0.5 * torch.where(found.mask, pair, 0.0).sum().double()
        gradient = torch.autograd.grad(energy, edges)[0].double()
        forces = forces_from_edges(gradient, found.index)
        virial = torch.einsum("nka,nkb->ab", vectors, gradient)
        return SimpleNamespace(
            energy=energy.detach().reshape(1),
            forces=forces,
            stress=(virial / torch.linalg.det(systems.cell[0]).abs())[None] if stress else None,
        )


class Failing:
    """A bound potential with ``value`` as one force component from call ``call`` on (the first is 0)."""

    def __init__(self, inner, call: int, atom: int = 3, value: float = float("nan")):
        self.inner, self.call, self.atom, self.value, self.calls = inner, call, atom, value, 0

    def __call__(self, positions: Tensor) -> SimpleNamespace:
        prediction = self.inner(positions)
        if self.calls >= self.call:
            prediction.forces[self.atom, 1] = self.value
        self.calls += 1
        return prediction


class ToyPotential:
    """As much of a loaded potential as the command line uses, around :class:`Pairs`."""

    name_resolved, sha256, conservative, committee_heads = "toy:pairs@1.0", "ab" * 32, True, ()
    card = SimpleNamespace(summary="a pair potential for tests")
    known_surroundings: dict = {}
    device = torch.device("cpu")
    kernel = SimpleNamespace(describe=lambda potential, numbers: "torch")

    def __init__(self, dtype: str = "float32"):
        self.dtype = {"float32": torch.float32, "float64": torch.float64}[dtype]

    def bind(self, systems: Systems, *, head: str | None = None, skin: float = 0.5) -> Pairs:
        return Pairs(systems, self.dtype, skin)


def argon(repeat: int = 2, spacing: float = 5.3) -> Atoms:
    """An fcc crystal of 4 repeat³ argon atoms, a little disturbed."""
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    corners = np.array([[i, j, k] for i in range(repeat) for j in range(repeat) for k in range(repeat)])
    fractions = (corners[:, None] + basis).reshape(-1, 3) / repeat
    edge = repeat * spacing
    wiggle = 0.05 * np.random.default_rng(7).normal(size=fractions.shape)
    return Atoms(f"Ar{len(fractions)}", fractions * edge + wiggle, cell=[edge] * 3, pbc=True)


def pairs_job(atoms: Atoms | None = None, **model) -> Job:
    atoms = argon() if atoms is None else atoms
    return job(atoms, Pairs(Systems.from_atoms(atoms)), **model)


def job(atoms: Atoms, bound, **model) -> Job:
    described = {
        "name": "toy",
        "sha256": "ab" * 32,
        "head": "toy",
        "dtype": "float64",
        "device": "cpu",
        "skin": 0.5,
        "threads": 1,
    }
    structure = {"sha256": structure_hash(atoms), "file": "toy.xyz", "atoms": len(atoms)}
    return Job(atoms, bound, structure, described | model)


def forces_fn(bound):
    def evaluate(positions: Tensor) -> tuple[Tensor, Tensor]:
        prediction = bound(positions)
        return prediction.energy, prediction.forces

    return evaluate


def state_of(
    positions: Tensor, velocities: Tensor, masses: Tensor, bound, *, seed: int = 1, com_removed: bool = False, **more
) -> State:
    """A state at step 0 with the energy and forces of ``bound``."""
    energy, forces = forces_fn(bound)(positions)
    generator = torch.Generator().manual_seed(seed)
    return State.start(positions, velocities, forces, energy, masses, generator, com_removed=com_removed, **more)


def thermal(n: int, mass: float, kelvin: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, dtype=torch.float64, generator=generator) * (units.kB * kelvin / mass) ** 0.5
