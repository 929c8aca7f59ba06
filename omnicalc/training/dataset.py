"""Labelled structures for training: files checked by hash, reference energies, and padded frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.files import sha256_of
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems
from omnicalc.training.recipe import DataSource, Recipe
from omnicalc.training.step import Frame


@dataclass(frozen=True)
class Labelled:
    """Structures of one source with energies (eV) and forces (eV/Å), split as their ``split`` key says."""

    source: DataSource
    train: list
    valid: list


@dataclass(frozen=True)
class Dataset:
    """Padded frames of all sources, and the reference energies that were taken off their labels."""

    heads: tuple[str, ...]
    references: dict[str, dict[int, float]]  # head -> atomic number -> eV
    train: list[list[Frame]]  # per source
    valid: list[list[Frame]]
    weights: list[float]  # probability of each source


def read_labelled(source: DataSource, folder: Path) -> Labelled:
    """Read and check one source.

    Raises:
        InputError: file not there (says where it comes from), wrong hash, or frames without energy, forces or split.
    """
    from omnicalc.structure_file import read_structures

    if not folder.is_dir():
        raise InputError(f"'{folder}' is no folder; --data takes the folder that holds the recipe's data files")
    matches = sorted(folder.rglob(source.file))
    origin = f"{source.repository} (commit {source.commit[:12]}, {source.path})"
    if not matches:
        raise InputError(f"'{source.file}' is not below '{folder}'; it comes from {origin}. Say where with --data")
    found = sha256_of(matches[0])
    if found != source.sha256:
        raise InputError(
            f"'{matches[0]}' has sha256 {found}, the recipe asks for {source.sha256}; it comes from {origin}"
        )
    frames = read_structures(matches[0])
    for k, atoms in enumerate(frames):
        _check_labels(atoms, f"frame {k} of '{matches[0]}'")
    frames = [a for a in frames if not any(a.info.get(k) == v for k, v in source.exclude.items())]
    parts = {name: [a for a in frames if a.info["split"] == name] for name in ("train", "valid")}
    for name, part in parts.items():
        if not part:
            raise InputError(f"no frame of '{matches[0]}' has the key split={name}; train and valid are both needed")
    return Labelled(source, **parts)


def _check_labels(atoms, where: str) -> None:
    """Raise :class:`InputError` for a frame without finite labels or without a split."""
    if atoms.calc is None or not {"energy", "forces"} <= set(atoms.calc.results) or "split" not in atoms.info:
        raise InputError(f"{where} lacks energy, forces or the key split=train|valid")
    if not (np.isfinite(atoms.get_potential_energy()) and np.isfinite(atoms.get_forces()).all()):
        raise InputError(f"{where} has an energy or forces that are not finite; leave it out")


def _check_elements(labelled: Sequence[Labelled], elements: Sequence[int] | None) -> None:
    """Raise :class:`InputError` when a source has elements that the model has no row for, or that its head's
    training frames lack, so that there would be no reference energy.
    """
    trained: dict[str, set[int]] = {}  # head -> atomic numbers
    for part in labelled:
        trained.setdefault(part.source.head, set()).update(int(z) for a in part.train for z in a.numbers)
    for part in labelled:
        head = trained[part.source.head]
        present = {int(z) for a in (*part.train, *part.valid) for z in a.numbers}
        if elements is not None and not present <= set(elements):
            missing = sorted(present - set(elements))
            raise InputError(f"'{part.source.file}' holds atomic numbers {missing}; add them to elements in [model]")
        if not present <= head:
            raise InputError(
                f"'{part.source.file}' has atomic numbers {sorted(present - head)} in its valid frames only; "
                f"head '{part.source.head}' needs training frames with them"
            )


def fit_references(frames: Sequence, prior: dict[int, float]) -> dict[int, float]:
    """Per-element energies (eV) whose composition sums fit the frames' energies best, in float64.

    At fixed composition least squares leaves directions open; there the solution stays at ``prior``.
    """
    elements = sorted({z for atoms in frames for z in set(atoms.numbers.tolist())})
    missing = [z for z in elements if z not in prior]
    if missing:
        raise InputError(f"the recipe's reference_prior lacks atomic numbers {missing}; give an energy for each")
    counts = np.array([[(a.numbers == z).sum() for z in elements] for a in frames], dtype=float)
    energies = np.array([a.get_potential_energy() for a in frames])
    start = np.array([prior[z] for z in elements])
    correction = np.linalg.lstsq(counts, energies - counts @ start, rcond=1e-10)[0]
    return dict(zip(elements, (start + correction).tolist(), strict=True))


def build_dataset(recipe: Recipe, folder: Path, cutoff: float, dtype: torch.dtype = torch.float32) -> Dataset:
    """All sources of a recipe as padded frames of one common shape."""
    from ase.data import atomic_numbers

    labelled = [read_labelled(source, folder) for source in recipe.data]
    prior = {atomic_numbers[symbol]: energy for symbol, energy in recipe.reference_prior.items()}
    _check_elements(labelled, recipe.model.get("elements"))
    references = {}
    for head in recipe.heads:
        frames = [a for part in labelled if part.source.head == head for a in part.train]
        references[head] = fit_references(frames, prior)
    edges = [[[_edges(a, cutoff) for a in frames] for frames in (part.train, part.valid)] for part in labelled]
    shapes = [e[1].shape for part in edges for split in part for e in split]
    size = (max(s[0] for s in shapes), max(s[1] for s in shapes))
    padded = []
    for part, (train, valid) in zip(labelled, edges, strict=True):
        row, table = recipe.heads.index(part.source.head), references[part.source.head]
        padded.append(
            [
                [_frame(a, *e, row, table, size, cutoff, dtype) for a, e in zip(frames, split, strict=True)]
                for frames, split in ((part.train, train), (part.valid, valid))
            ]
        )
    total = sum(s.weight for s in recipe.data)
    return Dataset(
        recipe.heads,
        references,
        train=[p[0] for p in padded],
        valid=[p[1] for p in padded],
        weights=[s.weight / total for s in recipe.data],
    )


def _edges(atoms, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, mask and float64 vectors of all neighbours of one structure."""
    systems = Systems.from_atoms(atoms)
    found = neighbors(systems, cutoff)
    return found.index, found.mask, found.vectors(systems.positions, systems.cell, systems.system)


def _frame(
    atoms, index: Tensor, mask: Tensor, vectors: Tensor, head: int, references: dict[int, float],
    size: tuple[int, int], cutoff: float, dtype: torch.dtype,
) -> Frame:  # fmt: skip
    """One structure padded to ``size`` = (atoms, slots); padding atoms repeat the last element and see nobody."""
    n, k = index.shape
    n_max, k_max = size
    numbers = torch.full((n_max,), int(atoms.numbers[-1]))
    numbers[:n] = torch.from_numpy(atoms.numbers)
    padded_index = torch.arange(n_max)[:, None].repeat(1, k_max)
    padded_index[:n, :k] = index
    padded_mask = torch.zeros(n_max, k_max, dtype=torch.bool)
    padded_mask[:n, :k] = mask
    padded_vectors = torch.zeros(n_max, k_max, 3, dtype=dtype)
    padded_vectors[..., 0] = 2 * cutoff
    padded_vectors[:n, :k] = vectors.to(dtype)
    weight = torch.zeros(n_max, dtype=dtype)
    weight[:n] = 1
    forces = torch.zeros(n_max, 3, dtype=dtype)
    forces[:n] = torch.from_numpy(atoms.get_forces())
    energy = atoms.get_potential_energy() - sum(references[z] for z in atoms.numbers.tolist())
    return Frame(
        numbers=numbers,
        head=torch.tensor([head]),
        index=padded_index,
        mask=padded_mask,
        vectors=padded_vectors,
        weight=weight,
        energy=torch.tensor(energy, dtype=dtype),
        forces=forces,
    )
