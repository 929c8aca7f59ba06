"""What SCD networks give beside energies: pooled embeddings, denoising, and properties of structures."""

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from omnicalc.batches import batches
from omnicalc.errors import InputError
from omnicalc.gradients import geometry
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.registry import load_potential
from omnicalc.systems import Systems

BATCH_ATOMS = 2000  # atoms that go through the network at once


def embed(
    structures: Atoms | Sequence[Atoms],
    model: str | Path | Potential,
    *,
    conditioned: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> np.ndarray:
    """One vector per structure (S, D), which does not change under translation and order of atoms.

    ``conditioned``: of a second pass that is conditioned on the embedding of the first, as in pretraining.
    ``progress``: structures done, structures in all.

    Raises:
        InputError: no structure, an element that the weights were not trained on, or weights without an embedding head.
    """
    potential = _with_embeddings(model)
    network, found = potential.model.eval(), []
    with torch.no_grad():
        for graph in _graphs(structures, potential):
            vectors = network.embed(graph)
            found.append(network.embed(graph, vectors) if conditioned else vectors)
            progress(sum(map(len, found)), len(_listed(structures)))
    return torch.cat(found).double().cpu().numpy()


def denoise(
    structures: Atoms | Sequence[Atoms], model: str | Path | Potential, *, steps: int = 1, conditioned: bool = False
) -> Atoms | list[Atoms]:
    """Copies of the structures with the noise that the network sees taken off, ``steps`` times over.

    Atoms move as far as constraints of the structures let them: those held by ``FixAtoms`` stay where they are.
    ``conditioned``: on the structure's own embedding, as in pretraining, where the clean structure's was used. Raises
    as :func:`embed`.
    """
    potential = _with_embeddings(model)
    network = potential.model.eval()
    if not (isinstance(steps, Integral) and steps >= 1):
        raise InputError(f"steps = {steps!r} given; a whole number, 1 or more, is needed")
    frames = [a.copy() for a in _listed(structures)]
    with torch.no_grad():
        for _ in range(steps):
            moved = []
            for graph in _graphs(frames, potential):
                condition = network.embed(graph) if conditioned else None
                moved.append(network.denoise(graph, condition).double().cpu().numpy())
            ends = np.cumsum([len(a) for a in frames])[:-1]
            for atoms, noise in zip(frames, np.split(np.concatenate(moved), ends), strict=True):
                atoms.set_positions(atoms.positions - noise)
    return frames[0] if isinstance(structures, Atoms) else frames


def properties(structures: Atoms | Sequence[Atoms], model: str | Path | Potential, *, head: str) -> np.ndarray:
    """One number per structure (S,), of the property that the head ``head`` was trained on, in its unit.

    Raises:
        InputError: an unknown head, weights that were trained for something else, or an element that the head does not
            know.
    """
    potential = model if isinstance(model, Potential) else load_potential(model)
    gives = getattr(getattr(potential.model, "config", None), "gives", "energies")
    if gives != "properties":
        raise InputError(
            f"{potential.name_resolved} gives {gives}, no properties; fine-tune weights for one with gives = "
            '"properties" in [model] and objective "property" of a recipe of omnicalc train'
        )
    potential.named_head(head)
    potential.model.eval()
    found = []
    with torch.no_grad():
        for graph in _graphs(structures, potential, head):
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


def _with_embeddings(model: str | Path | Potential) -> Potential:
    potential = model if isinstance(model, Potential) else load_potential(model)
    network = potential.model
    if not (hasattr(network, "embed") and hasattr(network, "denoise")):
        raise InputError(
            f"{potential.name_resolved} has no embedding and noise heads; weights of the families scd and denoiser have"
        )
    return potential


def _check_elements(potential: Potential, systems: Systems, head: str | None) -> None:
    """Refuse elements that no head, or not the named one, was trained on: their rows of the tables are random."""
    from ase.data import chemical_symbols

    heads = potential.heads.values() if head is None else [potential.heads[head]]
    known = frozenset().union(*(h.elements for h in heads))
    unknown = sorted(set(systems.numbers.unique().tolist()) - known)
    if unknown:
        raise InputError(
            f"{potential.name_resolved} does not know element {', '.join(chemical_symbols[z] for z in unknown)}; it "
            f"was trained on {', '.join(chemical_symbols[z] for z in sorted(known))}"
        )


def _listed(structures) -> list[Atoms]:
    if isinstance(structures, Atoms):
        return [structures]
    if not isinstance(structures, Sequence) or isinstance(structures, str):
        raise InputError(f"{structures!r} given; one ase.Atoms or a list of them is needed (ase.io.read reads files)")
    return list(structures)


def _graphs(structures, potential: Potential, head: str | None = None):
    """Batches of at most BATCH_ATOMS atoms, in order, at the named head or the first."""
    frames, network = _listed(structures), potential.model
    row = 0 if head is None else list(potential.heads).index(head)
    if not frames:
        raise InputError("no structure was given; at least one is needed")
    parameter = next(network.parameters())
    for members in batches([len(frame) for frame in frames], BATCH_ATOMS):
        systems = Systems.from_atoms([frames[k] for k in members]).to(parameter.device)
        _check_elements(potential, systems, head)
        found = neighbors(systems, network.cutoff)
        rows = torch.full((systems.n_systems,), row, device=parameter.device)
        yield geometry(network, systems, found, parameter.dtype, False).graph(rows)
