"""Quantum thermal bath: Langevin dynamics with noise of the colour that gives vibrations their zero-point energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import units
from torch import Tensor

from omnicalc.errors import RunError
from omnicalc.md.integrators import ForcesFn, Integration, arrive, gained

if TYPE_CHECKING:
    from omnicalc.md.state import State

HBAR = units._hbar / units._e * units.s  # eV times ASE's unit of time
PER_CM = 2.0 * math.pi * units._c * 100.0 / units.s  # angular frequency of 1 cm^-1, per ASE time unit
CUTOFF = 6000.0 * PER_CM  # above every vibration of molecules
_EDGE = 150.0 * PER_CM  # over which the noise fades out at the cutoff
_HOLD_FS = 2.0  # at most so long is one value of the noise kept: half a period of 8300 cm^-1
_BLOCK = 16  # values of the noise made at once
_DECAYS = 14.0  # length of the filter on either side, in decay times of its slowest part
_GRID = 1 << 14  # frequencies of the filter's transform
_ROUNDS, _POINTS = 30, 1500  # of the deconvolution


@dataclass(frozen=True, eq=False)
class QuantumBath:
    """The noise of a quantum thermal bath, prepared once.

    Values are made in blocks of B by one product of matrices: the filter is longer than a hundred draws, and reading
    all of them for each value would take longer than the rest of a step.
    """

    weights: Tensor  # (W,) float64, eV^½: filter that colours independent normals
    hold: int  # steps for which one value is kept
    block: Tensor  # (B, W - 1 + B): the filter, one draw later in each row

    @classmethod
    def prepare(cls, temperature_K: float, friction: float, timestep: float, like: Tensor) -> QuantumBath:
        """``friction`` and ``timestep`` in ASE's units; ``like``: a tensor of the device to be used."""
        hold = max(1, int(_HOLD_FS * units.fs / timestep + 1e-9))
        spacing = hold * timestep
        omega = np.linspace(0.0, math.pi / spacing, _GRID // 2 + 1)
        energy = deconvolved(omega, temperature_K, friction) * _fade(omega)
        root = np.sqrt(energy / (hold * _held(omega, hold, timestep)))
        response = np.fft.irfft(root, _GRID)
        slowest = min(math.pi * units.kB * temperature_K / HBAR, math.pi * _EDGE)
        half = min(math.ceil(_DECAYS / slowest / spacing), _GRID // 2 - 1)
        weights = like.new_tensor(np.roll(response, half)[: 2 * half + 1])
        block = weights.new_zeros(_BLOCK, len(weights) - 1 + _BLOCK)
        for k in range(_BLOCK):
            block[k, k : k + len(weights)] = weights
        return cls(weights, hold, block)

    @property
    def steps(self) -> int:
        """Steps that one block of values lasts."""
        return self.hold * len(self.block)

    def start(self, n_atoms: int, generator: torch.Generator) -> Tensor:
        """(W - 1 + B, N, 3): the last W - 1 draws, oldest first, and room for B values. Advances ``generator``."""
        draws = self._draws(len(self.weights) - 1, n_atoms, generator)
        return torch.cat([draws, draws.new_zeros(len(self.block), n_atoms, 3)])

    def next(self, bath: Tensor, generator: torch.Generator) -> Tensor:
        """The same, B draws later, with the B values made of them."""
        count, n_atoms = len(self.block), bath.shape[1]
        draws = torch.cat([bath[:-count], self._draws(count, n_atoms, generator)])
        values = self.block @ draws.view(len(draws), -1)
        return torch.cat([draws[count:], values.view(count, n_atoms, 3)])

    def value(self, bath: Tensor, step: int) -> Tensor:
        """(N, 3), eV^½, for the step after ``step``."""
        return bath[len(self.weights) - 1 + step % self.steps // self.hold]

    def _draws(self, count: int, n_atoms: int, generator: torch.Generator) -> Tensor:
        like = self.weights
        return torch.randn(count, n_atoms, 3, dtype=like.dtype, device=like.device, generator=generator)


def quantum(state: State, forces_fn: ForcesFn, settings: Integration) -> State:
    """One step of BAOAB with the noise of a quantum thermal bath.

        O   v ← c v + sqrt((1 - c²)/m) ζ,    c = exp(-γ h)
        spectrum of ζ:   θ(ω) = (ħω/2) coth(ħω / 2 k_B T), faded out above 6000 cm⁻¹

    =======  ==============================  =================
    symbol   variable                        unit
    =======  ==============================  =================
    ζ        ``bath.value`` (N, 3)           eV^½
    γ        ``settings.friction``           1/(Å·sqrt(amu/eV))
    h        ``settings.timestep``           Å·sqrt(amu/eV)
    =======  ==============================  =================

    With θ = k_B T this is BAOAB. ζ is made of independent normals by a symmetric filter, a new value every 2 fs; the
    filter makes up for the values being held in between. Friction blurs a vibration's frequency, and as θ grows with
    frequency that would raise its energy: the spectrum is corrected by deconvolution.

    A quantum thermal bath is a model: harmonic vibrations get the energy of quantum theory, but in anharmonic systems
    zero-point energy leaks from fast vibrations into slow ones, the more the weaker the friction. The temperature of
    the log is that of the (quantum) kinetic energy, far above the bath's for hydrogens.

    Dammak et al., Phys. Rev. Lett. 103, 190601 (2009); filter: Barrat & Rodney, J. Stat. Phys. 144, 679 (2011);
    deconvolution: Mangaud et al., J. Chem. Theory Comput. 15, 2863 (2019).
    """
    h, masses, bath = settings.timestep, state.masses[:, None], settings.quantum
    generator, memory = state.generator, state.bath
    if len(memory) != len(bath.weights) - 1 + len(bath.block):
        raise RunError(
            f"the noise kept at step {state.step} is {len(memory)} values long, as of another version; start another "
            "run (--out)"
        )
    if state.step % bath.steps == 0:
        generator = state.generator.clone_state()
        memory = bath.next(memory, generator)
    noise = bath.value(memory, state.step)
    if settings.mobile is not None:
        noise = noise * settings.mobile
    keep, width = math.exp(-settings.friction * h), math.sqrt(-math.expm1(-2.0 * settings.friction * h))

    velocities = torch.addcdiv(state.velocities, state.forces, masses, value=0.5 * h)
    positions = torch.add(state.positions, velocities, alpha=0.5 * h)
    kicked = torch.addcmul(keep * velocities, noise, masses.rsqrt(), value=width)  # not sqrt: see baoab
    heat = state.heat + gained(velocities, kicked, masses)
    positions = torch.add(positions, kicked, alpha=0.5 * h)
    return arrive(state, positions, kicked, forces_fn, settings, generator=generator, bath=memory, heat=heat)


def oscillator_energy(omega: np.ndarray, temperature_K: float) -> np.ndarray:
    """θ: mean energy, eV, of quantum oscillators of angular frequencies ``omega``; k_B T at zero."""
    kT = units.kB * temperature_K
    x = np.maximum(HBAR * np.abs(omega) / (2.0 * kT), 1e-9)
    return kT * x / np.tanh(x)


def deconvolved(omega: np.ndarray, temperature_K: float, friction: float) -> np.ndarray:
    """The spectrum, eV, with which oscillators under ``friction`` have the mean energy θ at their own frequency.

    The energy of an oscillator of frequency Ω is ∫ K(ω, Ω) spectrum(ω) dω over positive ω, with

        K = (γ/π) (ω² + Ω²) / ((ω² - Ω²)² + γ² ω²) = (1/π) d/dω arctan(γ ω / (Ω² - ω²))

    from the mean squares of position and velocity. Solved for the spectrum by multiplicative steps, which keep
    it positive, for Ω up to three quarters of the cutoff.
    """
    edges = np.linspace(0.0, 1.2 * CUTOFF, _POINTS + 1)
    grid = 0.5 * (edges[1:] + edges[:-1])
    target, fade = oscillator_energy(grid, temperature_K), _fade(grid)
    kernel = np.diff(np.arctan2(friction * edges, grid[:, None] ** 2 - edges**2), axis=1) / math.pi
    inner, factor = grid < 0.75 * CUTOFF, np.ones(_POINTS)
    for _ in range(_ROUNDS):
        step = target / (kernel @ (factor * target * fade))
        factor *= np.where(inner, step, 1.0)
        factor[~inner] = factor[inner][-1]
    return oscillator_energy(omega, temperature_K) * np.interp(omega, grid, factor)


def _fade(omega: np.ndarray) -> np.ndarray:
    """1 below the cutoff, 0 above it."""
    return 1.0 / (1.0 + np.exp(np.clip((omega - CUTOFF) / _EDGE, -50.0, 50.0)))


def _held(omega: np.ndarray, hold: int, timestep: float) -> np.ndarray:
    """Power that is left at ``omega`` when each value is kept for ``hold`` steps."""
    x = 0.5 * np.maximum(omega, 1e-9) * timestep
    return (np.sin(hold * x) / (hold * np.sin(x))) ** 2
