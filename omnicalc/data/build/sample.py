"""Frames of one start of one system: along a short relaxation, along dynamics, and distorted copies of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.build.composition import composition
from omnicalc.data.build.distort import pressed, rattled, stretched
from omnicalc.data.build.geometry import piece
from omnicalc.data.build.placing import contacts, place, place_apart
from omnicalc.data.build.walled import WalledXtb

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.data.build.recipe import Group, Recipe


def frames(system: str, group: Group, recipe: Recipe, start: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """Structures of one start, unlabelled, with ``info["origin"]`` saying what made them.

    Raises:
        LabelError: GFN2-xTB no longer converges along the way; what was found until then counts.
    """
    pieces = [piece(smiles, int(rng.integers(2**31))) for smiles in composition(system, recipe)]
    if group.kind == "approach":
        yield from _approaches(pieces, group, rng)
        return
    atoms = place_apart(pieces, rng.uniform(*group.apart), rng) if group.kind == "apart" else place(pieces, rng)
    yield from sampled(atoms, group, recipe, start, rng)


def sampled(atoms: Atoms, group: Group, recipe: Recipe, start: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """Frames from one starting geometry on."""
    atoms.calc = WalledXtb.around(atoms)
    yield from _relaxed(atoms, group)
    if group.kind == "stretch":
        yield from _stretches(atoms, group, rng)
    else:
        yield from _dynamics(atoms, group, recipe, start, rng)


def _relaxed(atoms: Atoms, group: Group) -> Iterator[Atoms]:
    from ase.optimize import FIRE

    optimiser = FIRE(atoms, logfile=None, maxstep=0.1)
    kept = set(np.linspace(3, group.relax_steps, max(group.relax_frames, 1)).astype(int)[: group.relax_frames].tolist())
    for step, _ in enumerate(optimiser.irun(fmax=0.02, steps=group.relax_steps)):
        if step in kept:
            yield _kept(atoms, "relax")


def _dynamics(atoms: Atoms, group: Group, recipe: Recipe, start: int, rng: np.random.Generator) -> Iterator[Atoms]:
    from ase import units
    from ase.md.langevin import Langevin

    temperature = group.temperatures[start % len(group.temperatures)]
    atoms.set_masses(np.where(atoms.numbers == 1, recipe.hydrogen_mass, atoms.get_masses()))
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * widths[:, None])  # Maxwell-Boltzmann
    dynamics = Langevin(
        atoms, recipe.step_fs * units.fs, temperature_K=temperature, friction=recipe.friction_per_fs / units.fs,
        rng=rng, fixcm=False,
    )  # fmt: skip
    for _ in range(group.md_frames):
        dynamics.run(group.md_every)
        now = _kept(atoms, f"md{temperature:.0f}")
        yield now
        for _ in range(group.rattles):
            yield _said(rattled(now, group.rattle_width, rng), "rattle")
        if rng.random() < group.stretched:
            yield _said(stretched(now, group.stretch, rng), "stretch")


def _stretches(atoms: Atoms, group: Group, rng: np.random.Generator) -> Iterator[Atoms]:
    relaxed = _kept(atoms, "relax")
    for _ in range(group.frames):
        yield _said(stretched(rattled(relaxed, group.rattle_width, rng), group.stretch, rng), "stretch")


def _approaches(pieces, group: Group, rng: np.random.Generator) -> Iterator[Atoms]:
    first, rest = pieces[0], pieces[1:]
    for _ in range(group.frames):
        second = rest[int(rng.integers(len(rest)))]
        limits = contacts(first.atoms.numbers, second.atoms.numbers)
        both = pressed(first.atoms, second.atoms, limits, rng.uniform(*group.approach), rng)
        both = rattled(both, group.rattle_width, rng)
        charge = first.charge + second.charge
        both.info = {"charge": charge, "spin": 1 + (int(both.numbers.sum()) - charge) % 2}
        yield _said(both, "approach")


def _kept(atoms: Atoms, origin: str) -> Atoms:
    """A copy without momenta and masses; those were of the sampling alone."""
    from ase import Atoms

    return _said(Atoms(atoms.numbers, atoms.positions, info=dict(atoms.info)), origin)


def _said(atoms: Atoms, origin: str) -> Atoms:
    atoms.info = {**atoms.info, "origin": origin}
    return atoms
