"""Zero-point leakage of the quantum thermal bath, on the worst case there is: two vibrations in resonance.

    python analysis/engine/leakage.py [--ps 20]

A vibration of 3400 1/cm and one of half that frequency, coupled by an anharmonic term,

    V = k₁ x₁²/2 + k₂ x₂²/2 + c x₁ x₂²,

exchange energy freely, so classical dynamics drives them towards equal energies, and only the bath holds against it.
Their mean kinetic energies are compared with those of quantum theory, from the eigenstates of the same V.
"""

import argparse

import numpy as np
import torch
from ase import units

from omnicalc.md.integrators import Integration
from omnicalc.md.quantum import HBAR, PER_CM, QuantumBath, quantum
from omnicalc.md.state import State

KELVIN, MASS, COPIES = 300.0, 1.0, 600  # K, amu, along x, y and z each of 200 pairs of atoms
OMEGA = PER_CM * np.array([3400.0, 1700.0])
STIFFNESS = MASS * OMEGA**2  # eV/Å^2
COUPLING = 15.0  # eV/Å^3
FUNCTIONS = 30  # of each vibration's own oscillator, as basis of the eigenstates


def exact() -> np.ndarray:
    """Mean kinetic energy (2,), eV, of either vibration by quantum theory."""
    n = np.arange(FUNCTIONS)
    up = np.diag(np.sqrt(n[1:]), 1)
    x = [np.sqrt(HBAR / (2.0 * MASS * omega)) * (up + up.T) for omega in OMEGA]
    kinetic = [-0.25 * HBAR * omega * (up - up.T) @ (up - up.T) for omega in OMEGA]
    one = np.eye(FUNCTIONS)
    parts = [np.kron(kinetic[0], one), np.kron(one, kinetic[1])]
    potential = 0.5 * (STIFFNESS[0] * np.kron(x[0] @ x[0], one) + STIFFNESS[1] * np.kron(one, x[1] @ x[1]))
    energies, states = np.linalg.eigh(sum(parts) + potential + COUPLING * np.kron(x[0], x[1] @ x[1]))
    weights = np.exp(-(energies - energies[0]) / (units.kB * KELVIN))
    weights /= weights.sum()
    return np.array([np.einsum("k,ik,ij,jk->", weights, states, part, states, optimize=True) for part in parts])


def forces(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy (1,) and forces; fast vibrations are the first half of the atoms."""
    fast, slow = positions.chunk(2)
    energy = 0.5 * (STIFFNESS[0] * fast**2 + STIFFNESS[1] * slow**2) + COUPLING * fast * slow**2
    pull = torch.cat([-STIFFNESS[0] * fast - COUPLING * slow**2, -STIFFNESS[1] * slow - 2 * COUPLING * fast * slow])
    return energy.sum().reshape(1), pull


def sampled(friction_per_fs: float, ps: float, timestep_fs: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Mean kinetic energy (2,), eV, under the bath, and its error from the scatter among ten groups of pairs."""
    pairs = COPIES // 3
    generator = torch.Generator().manual_seed(1)
    like = torch.zeros(2 * pairs, 3, dtype=torch.float64)
    masses = torch.full((2 * pairs,), MASS, dtype=torch.float64)
    bath = QuantumBath.prepare(KELVIN, friction_per_fs / units.fs, timestep_fs * units.fs, masses)
    plan = Integration.from_fs(timestep_fs, KELVIN, friction_per_fs, quantum=bath)
    energy, pull = forces(like)
    start = bath.start(2 * pairs, generator)
    state = State.start(like, like, pull, energy, masses, generator, bath=start)
    settle, total, count = round(5.0 / friction_per_fs / timestep_fs), torch.zeros_like(like), 0
    for step in range(settle + round(1e3 * ps / timestep_fs)):
        state = quantum(state, forces, plan)
        if step >= settle:
            total, count = total + 0.5 * MASS * state.velocities.square(), count + 1
    groups = (total / count).view(2, 10, -1).mean(2).numpy()
    return groups.mean(1), groups.std(1, ddof=1) / np.sqrt(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--frictions", type=float, nargs="+", default=[0.001, 0.003, 0.01, 0.03], help="1/fs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    theory = exact()
    print(f"quantum theory: {1e3 * theory[0]:.1f} and {1e3 * theory[1]:.1f} meV; kT/2 is {500 * units.kB * KELVIN:.1f}")
    print("friction, 1/fs   fast over theory   slow over theory")
    for friction in given.frictions:
        mean, error = sampled(friction, given.ps)
        ratio, spread = mean / theory, error / theory
        print(f"{friction:14g}   {ratio[0]:.3f} +- {spread[0]:.3f}     {ratio[1]:.3f} +- {spread[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
