"""Short-range repulsion against the printed formula, and its end."""

import numpy as np
import pytest
import torch
from ase import units
from ase.data import covalent_radii

from omnicalc.models.omnimol.repulsion import Repulsion


def energies(kind, z, other, r):
    r = torch.as_tensor(r, dtype=torch.float64)
    numbers = (torch.full(r.shape, x) for x in (z, other))
    return Repulsion(kind, 0.8, 100.0)(r, torch.ones_like(r, dtype=torch.bool), *numbers)


def test_zbl():
    """Ziegler, Biersack and Littmark: Z Z' e^2/r phi(r/a), phi = .1818 e^-3.2x + ..., under an envelope."""
    z, other, r = 6, 8, 0.3
    a = 0.88534 * units.Bohr / (z**0.23 + other**0.23)
    x = r / a
    terms = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4029), (0.02817, 0.2016))
    phi = sum(share * np.exp(-rate * x) for share, rate in terms)
    u = r / (0.8 * (covalent_radii[z] + covalent_radii[other]))
    coulomb = units._e / (4 * np.pi * units._eps0) * 1e10  # eV Å
    wanted = coulomb * z * other / r * phi * (1 - 10 * u**3 + 15 * u**4 - 6 * u**5)
    assert energies("zbl", z, other, [r]).item() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("kind", ["zbl", "core"])
def test_it_falls_and_ends_smoothly(kind):
    reach = 0.8 * 2 * covalent_radii[1]
    r = np.linspace(0.05, reach + 0.1, 500)
    found = energies(kind, 1, 1, r).numpy()
    assert (np.diff(found) <= 0).all() and (found[r >= reach] == 0).all()
    assert found[0] > 50 and np.isfinite(found).all()


def test_no_pair_no_energy():
    r = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([1, 0])
    found = Repulsion("zbl", 0.8, 100.0)(r, torch.tensor([False, False]), z, z)
    assert (found == 0).all() and torch.isfinite(torch.autograd.grad(found.sum(), r)[0]).all()
