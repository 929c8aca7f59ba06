"""How far BAOAB's kinetic temperature lies from the bath's: expected, fitted, and whether it can be seen.

    m<v²> = k_B T (1 - (w h)²/4)            one harmonic mode of frequency w, time step h; exact
    T_kin - T = -T h² <w²> / 4              3N modes: <w²> is the mean of their squared frequencies
    <w²> = tr(M^-1 H) / 3N = <F²/m> / k_B T     as <d²U/dx²> = <F²>/k_B T for every coordinate x

The structure has no such error in a harmonic well (Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013)),
which is why the forces of a short run foresee the temperature of a long one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from ase import units
from ase.data import atomic_masses, atomic_numbers

from omnicalc.analysis.rdf_curves import Value

OH_STRETCH = 3500.0  # 1/cm, about the band of the liquid with classical nuclei; one mode per hydrogen
RESOLVED = 3.0  # standard errors
_LIGHT = 2.99792458e-5  # cm/fs


def bias_from_forces(positions: Iterable[np.ndarray], elements: np.ndarray, bound: Callable, kelvin: float) -> float:
    """(T_kin - T) / h², K/fs², from the forces of ``bound`` on equilibrium frames (N, 3), Å."""
    import torch

    masses = atomic_masses[[atomic_numbers[e] for e in elements]]
    device = bound.systems.device
    square = [
        (bound(torch.as_tensor(frame, device=device)).forces.cpu().numpy() ** 2).mean(axis=1) / masses
        for frame in positions
    ]
    frequency = float(np.mean(square)) / (units.kB * kelvin) * units.fs**2  # 1/fs²
    return -kelvin * frequency / 4


def bias_from_stretch(elements: np.ndarray, kelvin: float) -> float:
    """The same with the O-H stretches alone: one mode in three of each hydrogen's."""
    share = float(np.mean(elements == "H")) / 3
    return -kelvin * share * (2 * np.pi * _LIGHT * OH_STRETCH) ** 2 / 4


def fit_square(h: np.ndarray, bias: list[Value]) -> tuple[Value, float]:
    """Weighted least squares of ``bias`` (K, at time steps ``h`` (n,) fs) to a h²: a in K/fs², and chi²."""
    y, weight = np.array([b.value for b in bias]), np.array([b.stderr for b in bias]) ** -2.0
    norm = float(weight @ h**4)
    a = float(weight @ (h**2 * y)) / norm
    return Value(a, norm**-0.5), float(weight @ (y - a * h**2) ** 2)


def resolution(fit: Value, expected: float, used_ps: float) -> tuple[bool, str]:
    """Whether the bias stands out of its error, and in words; if not, how long runs would have to be."""
    ratio = abs(fit.value) / fit.stderr
    if ratio >= RESOLVED:
        return True, f"the bias is resolved: {ratio:.1f} standard errors from zero"
    needed = used_ps * max(1.0, (RESOLVED * fit.stderr / abs(expected)) ** 2)
    return False, (
        f"TOO SHORT to resolve the bias: {ratio:.1f} standard errors from zero, {RESOLVED:g} are needed; "
        f"with the bias that the forces foresee, use about {max(1.0, needed):.0f} ps or more per run"
    )
