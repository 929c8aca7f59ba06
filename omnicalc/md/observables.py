"""Kinetic energy and temperature of a state, and the temperature of a set of configurations alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from ase import units
from torch import Tensor

from omnicalc.errors import InputError, RunError
from omnicalc.md.state import State

DISPLACEMENT = 0.005  # Å, of the differences of forces that give second derivatives


def kinetic_energy(state: State) -> float:
    """Sum of m v²/2 over all atoms, eV."""
    return 0.5 * float(torch.sum(state.masses[:, None] * state.velocities.square()))


def temperature(kinetic_eV: float, degrees_of_freedom: int) -> float:
    """Instantaneous kinetic temperature 2 K / (f k_B), K; 0 when there is no degree of freedom."""
    return 2.0 * kinetic_eV / (degrees_of_freedom * units.kB) if degrees_of_freedom else 0.0


class ConfigurationalTemperature(NamedTuple):
    """Estimate and its one-sigma error, both K."""

    temperature_K: float  # noqa: N815
    standard_error_K: float  # noqa: N815


def configurational_temperature(
    positions_frames: Iterable[np.ndarray | Tensor],
    bound_potential: Callable,
    *,
    probes: int = 1,
    displacement: float = DISPLACEMENT,
    blocks: int = 10,
    seed: int = 0,
) -> ConfigurationalTemperature:
    """Temperature of sampled configurations, without a look at velocities.

        k_B T = ⟨|F|²⟩ / ⟨∇²U⟩

    This follows from integrating ∇·(∇U exp(-U/k_B T)) over all space or one periodic cell. It holds for the
    exact canonical distribution, so a time step too long or a wrong thermostat shows up here even when the
    kinetic temperature is right. The Laplacian is a trace over the Hessian, taken by Hutchinson's probes z of
    independent ±1 and central differences of the forces:

        ∇²U = ⟨zᵀ H z⟩_z,    H z ≈ (F(x - ε z) - F(x + ε z)) / 2ε

    =======  ============================  ==========
    symbol   variable                      unit
    =======  ============================  ==========
    x        one of ``positions_frames``   Å
    F        forces of ``bound_potential`` eV/Å
    ε        ``displacement``              Å
    =======  ============================  ==========

    ``positions_frames``: frames (N, 3) in the order they were sampled, unwrapped or wrapped by whole lattice
    vectors. ``bound_potential``: called with positions (N, 3) float64, gives an object with ``forces``; 1 + 2
    ``probes`` calls per frame. The seed fixes the probes; no global random state is touched.

    The error is that of a ratio of two means: jackknife over ``blocks`` contiguous blocks, honest once a
    block is longer than the correlation time. The mean of Hutchinson's estimate is exact for any number of
    probes; more of them only lower its noise.

    Raises :class:`InputError` for fewer than two frames, :class:`RunError` when the mean Laplacian is not
    positive (not near equilibrium).

    Rugh, Phys. Rev. Lett. 78, 772 (1997); Butler, Ayton, Jepps & Evans, J. Chem. Phys. 109, 6519 (1998);
    Hutchinson, Commun. Stat. 19, 433 (1990).
    """
    if probes < 1 or blocks < 2 or not displacement > 0:
        raise InputError(
            f"probes {probes}, blocks {blocks}, displacement {displacement} given; "
            "at least 1, at least 2, above 0 needed"
        )
    generator = torch.Generator().manual_seed(seed)
    device = getattr(getattr(bound_potential, "systems", None), "device", "cpu")
    square, laplacian = [], []
    for frame in positions_frames:
        positions = torch.as_tensor(frame, dtype=torch.float64, device=device)
        square.append(float(bound_potential(positions).forces.square().sum()))
        found = [float(curvature(positions, bound_potential, displacement, generator).sum()) for _ in range(probes)]
        laplacian.append(sum(found) / probes)
    return temperature_of_ratio(np.array(square), np.array(laplacian), blocks)


def curvature(positions: Tensor, bound_potential: Callable, displacement: float, generator: torch.Generator) -> Tensor:
    """(N, 3), eV/Å²: by one probe of independent ±1; its expectation is the diagonal of the Hessian."""
    z = torch.randint(0, 2, positions.shape, generator=generator).to(positions) * 2 - 1
    difference = (
        bound_potential(positions - displacement * z).forces - bound_potential(positions + displacement * z).forces
    )
    return z * difference / (2 * displacement)


def temperature_of_ratio(square: np.ndarray, laplacian: np.ndarray, blocks: int) -> ConfigurationalTemperature:
    """From |F|² (eV²/Å²) and ∇²U (eV/Å²) of every frame; errors as of :func:`configurational_temperature`."""
    if len(square) < 2:
        raise InputError(
            f"{len(square)} frames given; a configurational temperature with an error needs at least 2, better hundreds"
        )
    if not laplacian.mean() > 0:
        raise RunError(
            f"the mean Laplacian of the energy is {laplacian.mean():.4g} eV/Å²; "
            "a sample near equilibrium has a positive one"
        )
    parts = np.array_split(np.arange(len(square)), min(blocks, len(square)))
    without = np.array([np.delete(square, part).sum() / np.delete(laplacian, part).sum() for part in parts])
    variance = (len(parts) - 1) / len(parts) * np.sum((without - without.mean()) ** 2)
    return ConfigurationalTemperature(square.mean() / laplacian.mean() / units.kB, float(np.sqrt(variance)) / units.kB)
