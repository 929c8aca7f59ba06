"""Spheres cut out of prepared boxes: whole residues around a centre, cut bonds capped, charge counted from bonds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from omnicalc.data.build.formal_charge import formal_charges
from omnicalc.data.build.geometry import Piece, piece
from omnicalc.data.build.placing import place
from omnicalc.data.build.prepare import Preparation, prepared
from omnicalc.data.build.sample import sampled
from omnicalc.errors import InputError

if TYPE_CHECKING:
    import MDAnalysis
    from ase import Atoms

    from omnicalc.data.build.recipe import Group, Recipe

_CAP = {6: 1.09, 7: 1.01, 8: 0.96, 16: 1.34}  # Å, from the kept atom to the hydrogen in place of the one cut off
_COUNTER_IONS = {True: "[Na+]", False: "[Cl-]"}  # for a negative, and for a positive sphere


def carved_frames(system: str, group: Group, recipe: Recipe, start: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """Frames sampled from one sphere. ``system`` is a selection of MDAnalysis for the centres; one is drawn."""
    universe = prepared(Preparation(group.file, group.prepare_ps, group.solvate, group.salt, recipe.seed))
    try:
        centres = universe.select_atoms(system)
    except Exception as error:  # MDAnalysis raises several kinds for a selection that it cannot parse
        raise InputError(f"'{system}' is not a selection of MDAnalysis: {error}") from None
    if not len(centres):
        raise InputError(f"'{system}' selects nothing in '{group.file}'")
    centre = centres[int(rng.integers(len(centres)))]
    atoms = carve(universe, centre, rng.uniform(*group.radius))
    if group.neutral and atoms.info["charge"]:
        atoms = _neutralised(atoms, rng)
    atoms.info["molecule"] = _name(universe, centre)
    yield from sampled(atoms, group, recipe, start, rng)


def carve(universe: MDAnalysis.Universe, centre: MDAnalysis.core.groups.Atom, radius: float) -> Atoms:
    """Residues with an atom within ``radius`` Å of ``centre`` (periodic images included), in the frame of ``centre``.

    A bond that the cut opens ends in a hydrogen along it; at phosphorus, the oxygen beyond is kept and ends so. Charge
    is the sum of formal charges; all electrons are paired.
    """
    from ase import Atoms
    from ase.data import atomic_numbers

    inside = universe.select_atoms(f"byres (around {radius} index {centre.index})", periodic=True)
    inside = (inside | centre.residue.atoms).unique
    symbols = [name.capitalize() for name in universe.atoms.elements]
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    kept = set(inside.indices.tolist())
    neighbours = _neighbours(universe)
    for k in sorted(kept):
        if numbers[k] == 15:
            kept |= {j for j in neighbours[k] if j not in kept}
    order = sorted(kept)
    positions = {k: universe.atoms.positions[k].astype(float) for k in order}
    cut = [(k, j) for k in order for j in neighbours[k] if j not in kept]
    box = universe.dimensions
    shifted = _beside_centre(universe, order, positions, centre, box)
    caps = []
    for k, j in cut:
        bond = _nearest(universe.atoms.positions[j] - universe.atoms.positions[k], box)
        caps.append(shifted[k] + bond / np.linalg.norm(bond) * _CAP.get(int(numbers[k]), 1.1))
    place_of = {k: n for n, k in enumerate(order)}
    bonds = [(place_of[k], place_of[j]) for k in order for j in neighbours[k] if j in kept and k < j]
    bonds += [(place_of[k], len(order) + n) for n, (k, _) in enumerate(cut)]
    all_numbers = np.concatenate([numbers[order], np.ones(len(cut), dtype=int)]).astype(int)
    atoms = Atoms(all_numbers, np.array([shifted[k] for k in order] + caps))
    atoms.positions -= atoms.positions.mean(axis=0)
    charges = formal_charges(all_numbers, bonds)
    charge = int(charges.sum())
    if (int(all_numbers.sum()) - charge) % 2:
        raise InputError(f"a sphere around atom {centre.index} has an odd number of electrons; are hydrogens missing?")
    atoms.info = {"charge": charge, "spin": 1}
    atoms.arrays["formal_charge"] = charges
    return atoms


def _neighbours(universe: MDAnalysis.Universe) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in universe.atoms]
    for i, j in universe.bonds.indices:
        found[i].append(int(j))
        found[j].append(int(i))
    return found


def _beside_centre(universe, order: list[int], positions: dict, centre, box) -> dict[int, np.ndarray]:
    """Positions with every molecule moved as a whole to the image nearest to the centre."""
    moved = {}
    fragments = universe.atoms.fragindices
    for fragment in dict.fromkeys(fragments[order].tolist()):
        members = [k for k in order if fragments[k] == fragment]
        reference = min(members, key=lambda k: np.linalg.norm(_nearest(positions[k] - centre.position, box)))
        image = _nearest(positions[reference] - centre.position, box)
        for k in members:
            moved[k] = image + _nearest(positions[k] - positions[reference], box)
    return moved


def _nearest(vector: np.ndarray, box) -> np.ndarray:
    from MDAnalysis.lib.distances import minimize_vectors

    vector = np.asarray(vector, dtype=np.float64)
    return vector if box is None else minimize_vectors(vector[None], box.astype(np.float64))[0]


def _neutralised(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    charge = atoms.info["charge"]
    whole = Piece(atoms, charge, atoms.arrays["formal_charge"].astype(float))
    ions = [piece(_COUNTER_IONS[charge < 0], 0)] * abs(charge)
    return place([whole, *ions], rng)


def _name(universe, centre) -> str:
    """Of the molecule that the centre belongs to: residue names, as the split by molecule needs them."""
    residues = centre.fragment.residues
    return "-".join(residues.resnames[:8]) if len(residues) > 1 else f"{centre.resname}-sphere"
