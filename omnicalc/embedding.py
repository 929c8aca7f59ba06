"""What SCD networks give beside energies: pooled embeddings, denoising, and properties of structures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from omnicalc.errors import InputError
from omnicalc.gradients import geometry
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


def properties(structures: Atoms | Sequence[Atoms], model: str | Path | Potential, *, head: str) -> np.ndarray:
    """One number per structure (S,), of the property that the head ``head`` was trained on, in its unit.

    Raises:
        InputError: an unknown head, or weights without heads for properties.
    """
    potential = model if isinstance(model, Potential) else load_potential(model)
    if head not in potential.heads or not hasattr(potential.model, "values"):
        names = ", ".join(potential.heads)
        raise InputError(f"no head '{head}' for a property; {potential.name_resolved} has: {names}")
    row, found = list(potential.heads).index(head), []
    with torch.no_grad():
        for graph in _graphs(structures, potential.model.eval(), row):
            references = potential.reference_values(graph.numbers, graph.head[graph.system])
            sums = references.new_zeros(len(graph.head)).index_add(0, graph.system, references)
            found.append(potential.model.values(graph).double() + sums)
    return torch.cat(found).cpu().numpy()


def untrained_twin(potential: Potential, seed: int = 0) -> Potential:
    """The same network with random weights, to compare with; the global random state stays as it was."""
    network = potential.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = type(network)(network.config).to(next(network.parameters()))
    return Potential(twin.eval(), list(potential.heads.values()))


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


def _graphs(structures, network, head_row: int = 0):
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
        head = torch.full((systems.n_systems,), head_row, device=parameter.device)
        yield geometry(network, systems, found, parameter.dtype, False).graph(head)
        first = last
