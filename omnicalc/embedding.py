"""Pooled embeddings of structures, and denoising of them, by SCD networks: ``omnicalc.embed``, ``omnicalc.denoise``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from omnicalc.errors import InputError
from omnicalc.models.graph import Graph
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.registry import load_potential
from omnicalc.systems import Systems

BATCH_ATOMS = 2000  # atoms that go through the network at once


def embed(
    structures: Atoms | Sequence[Atoms], model: str | Path | Potential, *, conditioned: bool = False
) -> np.ndarray:
    """One vector per structure (S, D), which does not change under translation and order of atoms.

    ``conditioned``: of a second pass that is conditioned on the embedding of the first, as in pretraining.

    Raises:
        InputError: no structure, an element that the network has no row for, or weights without an embedding head.
    """
    network = _network(model)
    found = []
    with torch.no_grad():
        for graph in _graphs(structures, network):
            vectors = network.embed(graph)
            found.append(network.embed(graph, vectors) if conditioned else vectors)
    return torch.cat(found).double().cpu().numpy()


def denoise(
    structures: Atoms | Sequence[Atoms], model: str | Path | Potential, *, steps: int = 1, conditioned: bool = False
) -> Atoms | list[Atoms]:
    """Copies of the structures with the noise that the network sees taken off, ``steps`` times over.

    ``conditioned``: on the structure's own embedding, as in pretraining, where the clean structure's was used.
    """
    network = _network(model)
    if steps < 1:
        raise InputError(f"steps = {steps} given; at least one is needed")
    frames = [a.copy() for a in _listed(structures)]
    with torch.no_grad():
        for _ in range(steps):
            moved = []
            for graph in _graphs(frames, network):
                condition = network.embed(graph) if conditioned else None
                moved.append(network.denoise(graph, condition).double().cpu().numpy())
            ends = np.cumsum([len(a) for a in frames])[:-1]
            for atoms, noise in zip(frames, np.split(np.concatenate(moved), ends), strict=True):
                atoms.positions -= noise
    return frames[0] if isinstance(structures, Atoms) else frames


def _network(model: str | Path | Potential):
    potential = model if isinstance(model, Potential) else load_potential(model)
    network = potential.model
    if not (hasattr(network, "embed") and hasattr(network, "denoise")):
        raise InputError(
            f"{potential.name_resolved} has no embedding and noise heads; weights of the families scd and denoiser have"
        )
    return network.eval()


def _listed(structures) -> list[Atoms]:
    return [structures] if isinstance(structures, Atoms) else list(structures)


def _graphs(structures, network):
    """Batches of at most BATCH_ATOMS atoms, in order."""
    frames, first = _listed(structures), 0
    if not frames:
        raise InputError("no structure was given; at least one is needed")
    parameter = next(network.parameters())
    while first < len(frames):
        last, atoms = first, 0
        while last < len(frames) and (last == first or atoms + len(frames[last]) <= BATCH_ATOMS):
            atoms += len(frames[last])
            last += 1
        systems = Systems.from_atoms(frames[first:last]).to(parameter.device)
        found = neighbors(systems, network.cutoff)
        vectors = found.vectors(systems.positions, systems.cell, systems.system).to(parameter.dtype)
        head = torch.zeros(systems.n_systems, dtype=torch.int64, device=parameter.device)
        yield Graph.build(systems, found, vectors, head)
        first = last
