"""Whether this installation computes: four checks of the default weights on eight waters, in about two seconds.

``self_test.xyz`` is a periodic cube of liquid water, equilibrated with the weights themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from ase.md.verlet import VelocityVerlet

from omnicalc.calculator import OmniCalc
from omnicalc.doctor import Finding
from omnicalc.md.state import draw_velocities

WATER = Path(__file__).with_name("self_test.xyz")
MODEL = "ubio-s3"

ENERGY_ERROR = 1e-5  # eV/atom, float32 against float64
FORCE_ERROR = 1e-3  # eV/Å
DIFFERENCE_STEP, DIFFERENCE_ERROR = 1e-3, 1e-4  # Å, eV/Å
NVE_STEPS, NVE_STEP_FS, NVE_KELVIN = 60, 0.5, 300.0
NVE_SPREAD = 0.02  # of the kinetic energy; 0.5 fs gives a few thousandths in liquid water
_BROKEN = "the results of this installation cannot be trusted: install OmniCalc and torch again, or try --device cpu"


def findings(device: str = "auto") -> Iterator[Finding]:
    """One finding per check, as they are made."""
    atoms = read(WATER)
    exact, fast = OmniCalc(MODEL, device="cpu", dtype="float64", kernel="torch"), OmniCalc(MODEL, device=device)
    yield precision(atoms, exact, fast)
    yield finite_difference(atoms, exact)
    yield conservation(atoms, fast)
    yield speed(atoms, fast)


def precision(atoms: Atoms, exact: OmniCalc, fast: OmniCalc) -> Finding:
    """Energy and forces as a run computes them, against plain torch in float64 on the CPU."""
    energy = abs(fast.get_property("energy", atoms) - exact.get_property("energy", atoms)) / len(atoms)
    force = np.abs(fast.get_property("forces", atoms) - exact.get_property("forces", atoms)).max()
    kernel = fast.potential.kernel.describe(fast.potential, torch.from_numpy(atoms.numbers))
    what = f"{fast.potential.device}, {kernel}: energy {energy:.1e} eV/atom, forces {force:.1e} eV/Å off float64"
    return _verdict("float32", what, energy < ENERGY_ERROR and force < FORCE_ERROR)


def finite_difference(atoms: Atoms, exact: OmniCalc) -> Finding:
    """-dE/dx of one oxygen by central differences."""
    energies = []
    for step in (DIFFERENCE_STEP, -DIFFERENCE_STEP):
        moved = atoms.copy()
        moved.positions[0, 0] += step
        energies.append(exact.get_property("energy", moved))
    slope = (energies[1] - energies[0]) / (2 * DIFFERENCE_STEP)
    error = abs(slope - exact.get_property("forces", atoms)[0, 0])
    return _verdict("gradient", f"a force is {error:.1e} eV/Å off the energy's slope", error < DIFFERENCE_ERROR)


def conservation(atoms: Atoms, fast: OmniCalc) -> Finding:
    """Spread of the total energy over a short run at constant energy."""
    atoms = atoms.copy()
    atoms.calc = fast
    masses = torch.from_numpy(atoms.get_masses())
    atoms.set_velocities(draw_velocities(masses, NVE_KELVIN, torch.Generator().manual_seed(0)).numpy())
    run, totals = VelocityVerlet(atoms, NVE_STEP_FS * units.fs), []
    run.attach(lambda: totals.append(atoms.get_total_energy()))
    run.run(NVE_STEPS)
    spread = np.ptp(totals) / (1.5 * len(atoms) * units.kB * NVE_KELVIN)
    what = f"energy kept within {spread:.2%} of the kinetic energy over {NVE_STEPS} steps of {NVE_STEP_FS} fs"
    return _verdict("dynamics", what, spread < NVE_SPREAD)


def speed(atoms: Atoms, fast: OmniCalc, calls: int = 10) -> Finding:
    """Median time of a force call."""
    atoms, times = atoms.copy(), []
    for _ in range(calls):
        atoms.positions[0, 0] += 1e-4
        start = time.perf_counter()
        fast.get_property("forces", atoms)
        times.append(time.perf_counter() - start)
    return Finding("speed", f"{1e3 * np.median(times):.1f} ms per force call, {len(atoms)} atoms (see omnicalc bench)")


def _verdict(name: str, what: str, good: bool) -> Finding:
    return Finding(name, what, advice=None if good else _BROKEN, problem=not good)
